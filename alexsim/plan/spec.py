"""``PlanSpec``: every choice that a plan is made of, once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

from alexsim.errors import PlanError, unknown
from alexsim.network.hybrid import first_split, hybrid
from alexsim.network.layers import Concat
from alexsim.network.network import Network
from alexsim.network.update_rules import OPTIMIZERS, Optimizer
from alexsim.plan.choices import (
    FUSIONS,
    PARTITIONS,
    PLAN_PRECISIONS,
    POLICIES,
    PRODUCTS,
    SCHEDULES,
    TRANSPORTS,
    Fusion,
    Partition,
    PlanPrecision,
    Policy,
    Products,
    Schedule,
    TransportName,
)

BACKENDS = ("", "aten", "native", "triton")
"""No backend, and those of ``alexsim.plan.backends``."""


WORDS: dict[str, tuple[str, ...]] = {
    "partition": PARTITIONS,
    "policy": POLICIES,
    "schedule": SCHEDULES,
    "transport": ("", *TRANSPORTS),
    "optimizer": OPTIMIZERS,
    "backend": BACKENDS,
    "fusion": FUSIONS,
    "precision": PLAN_PRECISIONS,
    "products": PRODUCTS,
}
"""Allowed values of the choices that are words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChoices:
    """Choices that do not depend on the network: a run's settings have the same."""

    gpus: int | None = None
    """Devices. With ``columns`` those of one replica: one per column (the default), or 1 for all of
    them; with ``replicas`` and ``hybrid`` any number."""
    partition: Partition = "columns"
    """``columns``: each device has columns of the network. ``replicas``: each has all of it, on its
    share of the images, and gradients are summed. ``hybrid``: a copy of the convolutions on every
    device, and a share of the fully connected layers' units (see ``alexsim.network.hybrid``)."""
    replicas: int = 1
    """Copies of all these devices that train together, each on its share of the images;
    ``columns`` only."""
    variable_batch: bool = False
    """With ``hybrid``: the layers that are split are updated after each device's images
    (Krizhevsky 2014, section 4.2), instead of once a step."""
    batch_size: int = 128
    """Images of a step, over all devices."""
    policy: Policy = "as-released"
    """``as-released`` and ``in-place`` hold the 2012 system's buffers, ``reuse`` the fewest bytes
    that this op order needs; ``pytorch`` what eager PyTorch would: counted and timed, not run."""
    schedule: Schedule = "serial"
    """``serial`` as in 2012, or ``overlap``."""
    transport: TransportName | Literal[""] = ""
    """How exchanges travel when the plan is run or timed: if empty, as the machine has it, or by
    ``peer`` where there is no machine."""
    backend: str = ""
    """What runs it: ``aten``, ``native``, ``triton``, or none (``""``: the 2012 kernels, without
    scratch)."""
    triton_ops: tuple[str, ...] = ()
    """With backend ``aten``: ops, named as in ``alexsim.network.kernel_names``, that Triton's
    kernels run, as they were measured to be faster; what ``triton`` has no kernel for stays."""
    threads: int = 1
    """Of a device, with backend ``native``: each has scratch of its own."""
    fusion: Fusion = "none"
    """``kernels``: two layers are one op where the backend has a kernel that does both: a
    convolution or fully connected layer and its ReLU, a response norm across channels and its
    max-pool (see ``alexsim.plan.fusion``). What lies between them is not in the plan. The 2012
    kernels did no such thing: with backend ``""`` it is the what-if of kernels that do."""

    @property
    def choices(self) -> dict[str, Any]:
        """All of them, by name."""
        return {field.name: getattr(self, field.name) for field in fields(PlanChoices)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpec(PlanChoices):
    """What is trained, and how: a network, and every choice of its plan.

    Another choice is another spec: ``dataclasses.replace(spec, policy="reuse")``.

    Raises:
        PlanError: a choice is not one of those allowed, or two do not go together.
    """

    network: Network
    trainable: frozenset[str] | None = None
    """Layers that learn; every layer with parameters by default. Gradients that no trained layer
    needs are left out, with their buffers."""
    optimizer: Optimizer = "sgd-2012"
    """By which rule weights are updated: see ``alexsim.network.update_rules``."""
    precision: PlanPrecision = "fp32"
    """``amp``: every number has the type that PyTorch's autocast gives it (see
    ``alexsim.plan.precision``). Such a plan is counted and simulated, not run."""
    products: Products = "fp32"
    """What fully connected layers multiply, with backend ``native``: ``bf16`` rounds operands, and
    nothing else, to bfloat16. Convolutions are faster by Winograd's method in float32."""
    half_layers: frozenset[str] | None = None
    """With ``amp``: the only layers whose products are in half precision; by default all that
    autocast lists."""

    def __post_init__(self) -> None:
        for name, allowed in WORDS.items():
            value = getattr(self, name)
            if value not in allowed:
                words = ", ".join(filter(None, allowed))
                raise PlanError(f"{name} must be one of {words}; got {value!r}")
        for name in ("batch_size", "replicas", "gpus", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                words = name.replace("_", " ")
                raise PlanError(f"{words} must be at least 1, got {value}")
        self._refuse_what_does_not_go_together()
        if self.triton_ops and self.backend != "aten":
            raise PlanError("ops that Triton's kernels run faster are of backend aten")
        if self.trainable is not None:
            known = self.network.weighted_layers
            if strange := sorted(self.trainable - set(known)):
                raise PlanError(unknown("layer with weights", strange[0], known))

    def _refuse_what_does_not_go_together(self) -> None:
        if self.policy == "pytorch":
            self._refuse_what_is_not_eager()
        if self.partition != "columns":
            if self.gpus is None and not self.network.copied:
                raise PlanError(f"partition {self.partition} needs a number of GPUs (--gpus N)")
            if self.replicas > 1:
                raise PlanError(
                    f"partition {self.partition} has as many copies as GPUs (--gpus); replicas are"
                    " of partition columns"
                )
        if self.partition == "hybrid":
            if self.backend == "triton" or self.triton_ops:
                raise PlanError("partition hybrid does not go with backend triton")
            if not self.network.copied:
                first_split(self.network)
        elif self.variable_batch:
            raise PlanError("a variable batch needs partition hybrid")
        if self.variable_batch and self.shares == 1:
            raise PlanError("a variable batch changes nothing where one GPU has all images")
        if self.half_layers is not None and self.precision != "amp":
            raise PlanError("half_layers are of precision amp")
        if self.products != "fp32" and self.backend != "native":
            raise PlanError(f"products in {self.products} are of backend native")
        if self.precision == "amp" and self.backend:
            raise PlanError("a plan of precision amp is counted and simulated; no backend runs it")
        if self.batch_size % self.shares:
            sharers = "GPUs" if self.partition != "columns" else "replicas"
            raise PlanError(
                f"a batch of {self.batch_size} images does not divide over {self.shares} {sharers}"
            )

    def _refuse_what_is_not_eager(self) -> None:
        if self.backend:
            raise PlanError("policy pytorch is counted and timed, not run: choose another to run")
        for name, allowed in (("fusion", "none"), ("schedule", "serial")):
            if (value := getattr(self, name)) != allowed:
                raise PlanError(f"policy pytorch does not go with {name} {value}")
        if self.partition == "hybrid":
            raise PlanError("policy pytorch does not go with partition hybrid")
        if self.partition == "columns" and self.gpus != 1 and self.network.columns > 1:
            raise PlanError(
                f"policy pytorch has all columns of {self.network.name} on one GPU (--gpus 1)"
            )

    @property
    def backends(self) -> str:
        """Whose kernels run it, in words."""
        return self.backend + " and triton" * bool(self.triton_ops)

    @property
    def counted(self) -> PlanSpec:
        """The same step by no backend."""
        return replace(self, backend="", triton_ops=(), products="fp32")

    @property
    def shares(self) -> int:
        """Parts into which the images of a step are divided."""
        if self.partition == "columns":
            return self.replicas
        return self.gpus or self.network.columns

    @property
    def copies(self) -> int:
        """Equal replicas whose gradients are summed; the plan is that of one replica."""
        return 1 if self.partition == "hybrid" else self.shares

    @property
    def all_gpus(self) -> int:
        """Devices of all replicas.

        Raises:
            PlanError: the network cannot have so many.
        """
        return len(set(self.device_of)) * self.copies

    @property
    def turns(self) -> int:
        """How often the layers that a hybrid plan splits run in a step."""
        return self.shares if self.partition == "hybrid" else 1

    @property
    def op_images(self) -> int:
        """Images that one op works on."""
        return self.batch_size // self.shares

    @property
    def trained(self) -> frozenset[str]:
        """Layers that learn."""
        if self.trainable is not None:
            return self.trainable
        return frozenset(self.network.weighted_layers) - self.network.frozen

    @property
    def written(self) -> Network:
        """The network in as many columns as the plan splits it into.

        Raises:
            NetworkError: it cannot be split so.
        """
        if self.partition == "hybrid" and not self.network.copied:
            return hybrid(self.network, self.shares)
        if self.policy == "pytorch" and any(isinstance(la, Concat) for la in self.network.layers):
            return _with_copies(self.network)
        return self.network

    @property
    def device_of(self) -> tuple[int, ...]:
        """Device of each column of ``written``.

        Raises:
            PlanError: there are neither one device nor one per column.
        """
        columns = self.shares if self.partition == "hybrid" else self.network.columns
        gpus = 1 if self.partition == "replicas" else self.gpus
        if gpus in (None, columns):
            return tuple(range(columns))
        if gpus == 1:
            return (0,) * columns
        if columns > 1:
            allowed = f"gpus must be 1 or {columns}, got {gpus}; partition replicas has a copy of"
            allowed += f" all {columns} columns on each of any number of GPUs"
        else:
            allowed = f"gpus must be 1, got {gpus}; partition replicas has a copy of it on each of"
            allowed += f" {gpus} GPUs, hybrid also splits its fully connected layers"
        written = f"{columns} columns" if columns > 1 else "one column"
        raise PlanError(f"{self.network.name} is written in {written}: {allowed}")


def usual_partition(network: Network, gpus: int | None) -> Partition:
    """How that many GPUs share a step where no partition is named.

    A network that is written in one column has a copy on each of several: ``replicas``, which is
    data parallel.
    """
    return "replicas" if network.columns == 1 and (gpus or 1) > 1 else "columns"


@lru_cache(maxsize=16)
def _with_copies(network: Network) -> Network:
    return replace(network, copies_concats=True)
