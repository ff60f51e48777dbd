"""``load_network``: an edition by its name, its variants, or a network of a user's file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from alexsim.editions import alexnet, published, zoo
from alexsim.editions.file import network_in
from alexsim.editions.variants import VARIANTS, varied
from alexsim.errors import NetworkError, known_as, unknown
from alexsim.network.network import Network

_EDITIONS: dict[str, Callable[[], Network]] = {
    "alexnet-2012": alexnet.alexnet_2012,
    "alexnet-paper": alexnet.alexnet_paper,
    "alexnet-1gpu": alexnet.alexnet_1gpu,
    "alexnet-6conv": alexnet.alexnet_6conv,
    "alexnet-owt": alexnet.alexnet_owt,
    "lenet-5": alexnet.lenet_5,
    "caffenet": published.caffenet,
    "alexnet-caffe": published.alexnet_caffe,
    "alexnet-ungrouped": published.alexnet_ungrouped,
    "alexnet-mxnet": published.alexnet_mxnet,
    "alexnet-tf": published.alexnet_tf,
    "alexnet-fbcunn": published.alexnet_fbcunn,
    "overfeat-fast": published.overfeat_fast,
    "vgg-a": published.vgg_a,
    "vgg-f": published.vgg_f,
    "vgg-m": published.vgg_m,
    "vgg-s": published.vgg_s,
    "cifar10-quick": published.cifar10_quick,
    "fcn-5": published.fcn_5,
    "fcn-8": published.fcn_8,
    **zoo.EDITIONS,
}


def edition_names() -> tuple[str, ...]:
    """Names that ``load_network`` accepts."""
    return tuple(_EDITIONS)


@cache
def load_network(name: str) -> Network:
    """The edition of that name, or a network of one's own: ``FILE.py:NAME``.

    Either may be varied: ``alexnet-paper+no-lrn+tanh`` (see ``variants``).

    Raises:
        NetworkError: there is none; the message lists the names and the nearest.
    """
    if name in _HELD:
        return _HELD[name]
    # Folders may have a + in their names.
    file, colon, rest = name.rpartition(".py:")
    rest, *variants = rest.split("+")
    if variants:
        return varied(load_network(file + colon + rest), tuple(variants))
    if colon:
        return network_in(f"{file}.py", rest)
    if name.endswith(".py"):
        return network_in(name, "")
    path, colon, inside = name.partition(":")
    if colon and Path(f"{path}.py").is_file():
        raise NetworkError(f"no network {name!r}: do you mean {path}.py:{inside}?")
    if (written := known_as(name, _EDITIONS)) is None:
        raise NetworkError(unknown("network", name, _EDITIONS))
    return _EDITIONS[written]()


_HELD: dict[str, Network] = {}
_HELD_AS = "held:"


def held(network: Network) -> str:
    """A name by which ``load_network`` gives this network, as long as the process lives."""
    name = f"{_HELD_AS}{network.name.replace('+', '-')}-{id(network):x}"
    _HELD[name] = network
    return name


def is_held(name: str) -> bool:
    """Whether the name is one of ``held``, which no other process knows."""
    return name.startswith(_HELD_AS)


def as_written(name: str) -> str:
    """A network's name as lists have it, in whatever case it was given; what is not known stays."""
    if ".py:" in name or is_held(name):
        return name
    base, *variants = name.split("+")
    written = [known_as(base, _EDITIONS) or base]
    return "+".join([*written, *(known_as(variant, VARIANTS) or variant for variant in variants)])
