"""``alexsim predict``: what a trained network says of single images."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import models as shared
from alexsim.cli import options


def predict(
    model: shared.Model,
    images: shared.Images,
    views: shared.ViewCount = 1,
    output: shared.Picture = None,
    names: shared.Names = None,
    batch: shared.Batch = 16,
    device: shared.Device = "cpu",
    backend: shared.Backend = "aten",
    threads: shared.Threads = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Decoding processes.")] = 1,
    json: options.Json = False,
) -> None:
    """Name the five likeliest classes of images, with the filters that each excites most.

    An image that lies in a folder named as one of the classes is known to be of that class. Files
    that cannot be read are named and left out. Probabilities are those of `alexsim eval`, to the
    bit with the same --batch.

    Example: alexsim predict runs/a cat.jpg dog.jpg -o guesses.png

    Example: alexsim predict alexnet.safetensors n02123045/*.JPEG --names LOC_synset_mapping.txt
    """
    from alexsim.cli.output import print_json
    from alexsim.evaluate.explain import labelled, pictures, predictions
    from alexsim.network.editions import load_network
    from alexsim.report.documents.evaluation import prediction_document
    from alexsim.report.prediction import prediction_picture, prediction_text
    from alexsim.train.weights import load_weights

    chosen = shared.view_count(views)
    weights = load_weights(model)
    known = shared.output_names(model, weights, images, names)
    shown, broken = pictures(labelled(images, known.ids), load_network(weights.network))
    setup = shared.setup(batch, device, backend, threads, workers)
    with options.counting("images", len(shown)) as done:
        found = predictions(
            weights, shown, setup, views=chosen, filters=json or output is not None, done=done
        )
    if json:
        print_json(
            prediction_document(found, known, weights, broken, model=str(model), views=chosen)
        )
    else:
        options.console().print(prediction_text(found, known, weights, broken), soft_wrap=True)
    if output is not None:
        picture = prediction_picture(found, known, weights)
        shared.write_picture(output, picture, said=not json)
