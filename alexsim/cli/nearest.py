"""``alexsim nearest``: images of a set that a trained network takes for alike."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import models as shared
from alexsim.cli import options


def nearest(
    model: shared.Model,
    images: shared.Images,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Images, as for `alexsim train`.")
    ],
    split: shared.Split = "held-out",
    count: Annotated[int, typer.Option("-k", metavar="K", help="How many for each image.")] = 5,
    output: shared.Picture = None,
    names: shared.Names = None,
    batch: shared.Batch = 128,
    device: shared.Device = "cpu",
    backend: shared.Backend = "aten",
    threads: shared.Threads = None,
    workers: shared.Workers = None,
    json: options.Json = False,
) -> None:
    """Find the images of a set that a network takes for the most like given ones.

    Compared are the last hidden layer's activations, fc7's 4096 in AlexNet, by their Euclidean
    distance (paper, figure 4). The set may have other classes than those trained on. An image that
    is itself in the set is not its own neighbour. Files that cannot be read are named and left out.

    Example: alexsim nearest runs/a cat.jpg dog.jpg --data DIR --split train -o alike.png
    """
    from alexsim.cli.output import print_json
    from alexsim.cli.parse import positive
    from alexsim.data.discover import discover, split_of
    from alexsim.data.sources.listing import left_out_lines
    from alexsim.errors import AlexsimError
    from alexsim.evaluate.evaluate import feature_layer
    from alexsim.evaluate.explain import labelled, pictures
    from alexsim.evaluate.neighbours import neighbours
    from alexsim.network.editions import load_network
    from alexsim.report.documents.evaluation import neighbour_document
    from alexsim.report.neighbours import neighbour_picture, neighbour_tables
    from alexsim.train.weights import load_weights

    positive("-k", count)
    weights = load_weights(model)
    layer = feature_layer(weights.network)
    found = discover(data, most_classes=sys.maxsize)
    samples, left_out = split_of(found, split)
    for line in left_out_lines(left_out):
        typer.echo(f"alexsim: {split}: {line}", err=True)
    if count > len(samples):
        raise AlexsimError(f"-k {count}: {data} has {len(samples)} images in its split {split!r}")
    known = shared.names_of(found.classes, [data], names)
    shown, broken = pictures(labelled(images, found.classes), load_network(weights.network))
    setup = shared.setup(batch, device, backend, threads, workers)
    with options.counting(f"{split} images", len(shown) + len(samples)) as done:
        near = neighbours(weights, shown, samples, setup, count=count, done=done)
    near = replace(near, broken=(*broken, *near.broken))
    if json:
        document = neighbour_document(
            near,
            known,
            weights.network,
            model=str(model),
            data=str(data),
            split=split,
            layer=layer,
            left_out=left_out,
        )
        print_json(document)
    else:
        tables = neighbour_tables(near, known, layer=layer, data=str(data), split=split)
        options.console().print(tables, soft_wrap=True)
    if output is not None:
        picture = neighbour_picture(near, known, layer=layer, split=split)
        shared.write_picture(output, picture, said=not json)
