"""``alexsim model nearest``: images of a set that a trained network takes for alike."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from alexsim.cli import models
from alexsim.cli.models import ImageOptions, SetOptions
from alexsim.command import options as shared
from alexsim.command.fields import option
from alexsim.command.output import print_json
from alexsim.errors import AlexsimError


@dataclass(frozen=True, kw_only=True)
class NearestOptions(ImageOptions, SetOptions):
    """Of what, and among which."""

    count: int = option("K", "How many for each image.", 5, names="-k")


def nearest(options: NearestOptions) -> None:
    """Find the images of a set that are most like others.

    Compared are the last hidden layer's activations, fc7's 4096 in AlexNet, by their Euclidean
    distance (paper, figure 4). The set may have other classes than those trained on. An image that
    is itself in the set is not its own neighbour. Files that cannot be read are named and left out.

    Example: alexsim model nearest runs/a cat.jpg dog.jpg --data DIR --split train -o alike.png
    """
    from alexsim.data.discover import discover
    from alexsim.documents.evaluation import neighbour_document
    from alexsim.editions.load import load_network
    from alexsim.evaluate.evaluate import feature_layer
    from alexsim.evaluate.explain import labelled, pictures
    from alexsim.evaluate.neighbours import neighbours
    from alexsim.report.neighbours import neighbour_picture, neighbour_tables
    from alexsim.train.weights import load_weights

    model, data, split, count = options.model, options.data, options.split, options.count
    weights = load_weights(model)
    layer = feature_layer(weights.network)
    dataset = discover(data, most_classes=sys.maxsize)
    samples, left_out = models.split_of(dataset, split)
    if count > len(samples):
        raise AlexsimError(f"-k {count}: {data} has {len(samples)} images in its split {split!r}")
    known = models.names_of(dataset.classes, [data], options.names)
    asked = labelled(options.images, dataset.classes)
    shown, broken = pictures(asked, load_network(weights.network))
    setup = models.setup(options, weights)
    with shared.counting(f"{split} images", len(shown) + len(samples)) as done:
        near = neighbours(weights, shown, samples, setup, count=count, done=done)
    near = replace(near, broken=(*broken, *near.broken))
    if options.json:
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
        shared.console().print(tables, soft_wrap=True)
    if options.output is not None:
        picture = neighbour_picture(near, known, layer=layer, split=split)
        models.write_picture(options.output, picture, said=not options.json)
