"""``alexsim model predict``: what a trained network says of single images."""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.cli import models
from alexsim.cli.models import ImageOptions, ViewOptions
from alexsim.command import options as shared
from alexsim.command.fields import AT_ONCE, option
from alexsim.command.output import print_json


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ImageOptions, ViewOptions):
    """Of what, and how."""

    batch: int = 16
    workers: int | None = option("N", "Decoding processes.", 1, rules=AT_ONCE)


def predict(options: PredictOptions) -> None:
    """Name the five likeliest classes of single images.

    With the filters that each image excites most. An image that lies in a folder named as one of
    the classes is known to be of that class. Files that cannot be read are named and left out.
    Probabilities are those of `alexsim eval`, to the bit with the same --batch.

    Example: alexsim model predict runs/a cat.jpg dog.jpg -o guesses.png

    Example: alexsim model predict net.safetensors n02123045/*.JPEG --names LOC_synset_mapping.txt
    """
    from alexsim.documents.evaluation import prediction_document
    from alexsim.editions.load import load_network
    from alexsim.evaluate.explain import labelled, pictures, predictions
    from alexsim.report.prediction import prediction_picture, prediction_text
    from alexsim.train.weights import load_weights

    model, views = options.model, options.views
    weights = load_weights(model)
    known = models.output_names(model, weights, options.images, options.names)
    shown, broken = pictures(labelled(options.images, known.ids), load_network(weights.network))
    setup = models.setup(options, weights)
    filters = options.json or options.output is not None
    with shared.counting("images", len(shown)) as done:
        predicted = predictions(weights, shown, setup, views=views, filters=filters, done=done)
    if options.json:
        print_json(
            prediction_document(predicted, known, weights, broken, model=str(model), views=views)
        )
    else:
        text = prediction_text(predicted, known, weights, broken)
        shared.console().print(text, soft_wrap=True)
    if options.output is not None:
        picture = prediction_picture(predicted, known, weights)
        models.write_picture(options.output, picture, said=not options.json)
