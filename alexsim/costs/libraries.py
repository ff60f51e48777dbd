"""The libraries by name: which cost model times an op."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from alexsim.costs import cuda_convnet, cudnn, elementwise, im2col, operators
from alexsim.costs.convolution import convolution, depthwise
from alexsim.costs.cost import (
    Cost,
    Limit,
    Precision,
    Work,
    bytes_of,
    convolution_shape,
    device_traits,
    launch_s,
    memory_bound,
)
from alexsim.costs.gemm import peak_flop_per_s, tensor_speedup
from alexsim.costs.precision import ABLE, StepPrecision
from alexsim.errors import ProfileError, known_as, unknown
from alexsim.machine.device import PLATFORMS, Device, Platform
from alexsim.network import counts
from alexsim.network.layers import Convolution
from alexsim.plan.plan import PASS_OF, OpKind

_PRODUCTS = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Whose kernels' speed is modelled.

    ``family`` is the framework around it: its elementwise kernels and its overhead per op.
    """

    name: str
    family: str
    algorithms: frozenset[str] = frozenset()
    platforms: tuple[Platform, ...] = ("cuda",)
    """Whose devices it runs on."""
    choice: str = ""
    """How a convolution's algorithm is chosen or what it is, of ``features.STATED``."""

    def costs(self, device: Device, work: Work, precision: Precision = "fp32") -> list[Cost]:
        """Pieces of an op's time before correction."""
        if self.name == "measured":
            raise ProfileError(
                "library measured is this machine's own: alexsim simulate --library measured"
            )
        if self.name == "roofline":
            return _roofline(device, work, precision)
        if copied := work.count.cast_bytes:
            left = replace(work.count, moved_bytes=work.count.moved_bytes - copied, cast_bytes=0)
            rest = self.costs(device, replace(work, count=left), precision)
            return [*rest, elementwise.cast(device, copied)]
        if work.epilogue is not None:
            return self._of_both(device, work, precision)
        if isinstance(work.part.layer, Convolution) and work.kind in _PRODUCTS:
            pieces = self._convolution(device, work, precision)
            if self.family in CHANNELS_LAST:
                shape = convolution_shape(work)
                moved = 2 * (shape.input_bytes + shape.output_bytes)
                pieces.append(memory_bound(device, moved, ("memory", "elementwise:transpose")))
        elif operators.products(work):
            pieces = operators.product_costs(device, work, precision)
        elif elementwise.is_product(work):
            pieces = elementwise.fully_connected(device, work, self.family, precision)
        else:
            pieces = elementwise.elementwise(device, work, self.family, precision)
        # A CPU's own time is all that its ops take.
        if self.family != "cuda-convnet" and device.architecture.platform != "cpu":
            family = f"family:{self.family}"
            named = PASS_OF.get(work.kind, "forward")
            way = "backward" if named.startswith("grad") else named
            traits = ("overhead", f"{family}:overhead", f"{family}:{way}:overhead")
            pieces.append(Cost(OVERHEAD_S, "launch", traits))
        every, flop = [], sum(cost.flop for cost in pieces)
        for cost in pieces:
            if cost.of_host:
                every.append(cost)
                continue
            whose = device_traits(device.basis.name, cost.learned.kind if cost.learned else "")
            if cost.flop:
                share = cost.flop / flop
                every.append(_possible(device, work, cost, precision, whose, share=share))
            else:
                every.append(cost.also(whose))
        return every

    def _of_both(self, device: Device, work: Work, precision: Precision) -> list[Cost]:
        """One kernel for two layers: the time of each alone, for the bytes that still move.

        A product takes as long as before, whichever layer's output it writes; its epilogue's other
        reads (a mask of the gradients) come on top. A norm and its pool only move bytes, and what
        is left of these takes one launch. The library's overhead is that of one op.
        """
        alone, epilogue = work.apart()
        first = self.costs(device, alone, precision)
        second = elementwise.elementwise(device, epilogue, self.family, precision)
        if work.part.layer.kernel == "product":
            left = (work.count.moved_bytes - alone.count.moved_bytes) / epilogue.count.moved_bytes
            return [*first, *(elementwise.share(cost, left) for cost in second if left)]
        overhead = first[1:]
        moving = [first[0], *second]
        left = work.count.moved_bytes / (alone.count.moved_bytes + epilogue.count.moved_bytes)
        # Each alone: with shares of their sum a faster device could shift time to what is corrected
        # upwards.
        least_s = launch_s(device) / len(moving)
        shares = (elementwise.share(cost, max(left, least_s / cost.seconds)) for cost in moving)
        return [*shares, *overhead]

    def _convolution(self, device: Device, work: Work, precision: Precision) -> list[Cost]:
        if self.name.startswith("cuda-convnet"):
            return cuda_convnet.convolution(device, work, self.name)
        if self.name == "im2col-gemm":
            return im2col.convolution(device, work, f"{self.name}:{self.family}")
        if self.family == "pytorch" and convolution_shape(work).depthwise:
            return [depthwise(device, work)]
        cost = convolution(
            device, work, self.name.removesuffix(HEURISTIC), self.algorithms, precision,
            algorithm=self.choice,
        )  # fmt: skip
        # A framework chooses among the library's algorithms, by trial or by rule of thumb.
        chosen = f"family:{self.family}:convolution"
        return [replace(cost, traits=(*cost.traits, chosen, f"{chosen}:{work.kind}"))]


def _possible(
    device: Device,
    work: Work,
    cost: Cost,
    precision: Precision,
    whose: tuple[str, ...] = (),
    *,
    share: float = 1.0,
) -> Cost:
    """A product, never faster than the peaks allow: its multiply-adds, and its share of the op's
    bytes moved once."""
    moved = bytes_of(work, precision)
    if work.fused:
        # Another piece moves the rest.
        plain = counts.grad_weight(work.part, work.batch_size, fused=False)
        if work.epilogue is not None:
            mask_bytes = counts.epilogue_read_bytes(work.epilogue, work.batch_size)
            plain = replace(plain, moved_bytes=plain.moved_bytes + mask_bytes)
        moved = bytes_of(replace(work, count=plain), precision)
    compute_s = cost.flop / peak_flop_per_s(device, precision)
    memory_s = share * moved / device.memory_bytes_per_s.value
    least_s = max(compute_s, memory_s)
    traits = cost.traits + whose
    if cost.seconds >= least_s:
        return Cost(cost.seconds, cost.limit, traits, least_s, cost.flop, cost.learned)
    limit: Limit = "compute" if compute_s > memory_s else "memory"
    return Cost(least_s, limit, traits, least_s, cost.flop, cost.learned)


CHANNELS_LAST = frozenset({"tensorflow-2015", "tensorflow-nhwc"})
"""Families that keep channels last and turn every operand of a convolution for cuDNN."""

HEURISTIC = "-heuristic"
"""Of a library that chooses algorithms by rules without a trial, as PyTorch does unless
``torch.backends.cudnn.benchmark`` is set. Measured kernels (forward passes on eight cards) have
taught what that costs."""
_HEURISTIC = ("v7", "v8")

OVERHEAD_S = 15e-6
"""Host time per op that a framework adds when nothing hides it, as PyTorch and TensorFlow took from
2017 on where small ops set the pace (20 to 40 us, half of it their host's); corrected per family,
and by source for hosts of their own."""

_FIXED = {
    "cuda-convnet": Library(name="cuda-convnet", family="cuda-convnet"),
    "cuda-convnet-2011-06": Library(name="cuda-convnet-2011-06", family="cuda-convnet"),
    "cuda-convnet-2011-09": Library(name="cuda-convnet-2011-09", family="cuda-convnet"),
    "cuda-convnet2": Library(name="cuda-convnet2", family="cuda-convnet"),
    "im2col-gemm": Library(name="im2col-gemm", family="caffe", platforms=("cuda", "cpu")),
    "nervana": Library(name="nervana", family="neon", algorithms=frozenset({"implicit"})),
    "nervana-winograd": Library(
        name="nervana-winograd",
        family="neon",
        algorithms=frozenset({"implicit", "winograd-2", "winograd-4"}),
    ),
    "fbfft": Library(
        name="fbfft", family="torch7", algorithms=frozenset({"fft", "fft-tiled", "implicit"})
    ),
    "libdnn": Library(
        name="libdnn",
        family="caffe-opencl",
        algorithms=frozenset({"implicit"}),
        choice="libdnn",
    ),
    "miopen": Library(
        name="miopen",
        family="pytorch",
        algorithms=frozenset({"implicit", "gemm", "fft", "winograd-2", "winograd-4"}),
        platforms=("hip",),
    ),
    "onednn": Library(
        name="onednn",
        family="onednn",
        algorithms=frozenset({"implicit", "winograd-4"}),
        platforms=("cpu",),
    ),
    "roofline": Library(name="roofline", family="", platforms=PLATFORMS),
    "measured": Library(name="measured", family="", platforms=PLATFORMS),
}


def library_names() -> tuple[str, ...]:
    """Names that ``load_library`` accepts."""
    by_rules = (f"cudnn-{version}{HEURISTIC}" for version in _HEURISTIC)
    return (*_FIXED, *(f"cudnn-{version}" for version in cudnn.VERSIONS), *by_rules)


@lru_cache(maxsize=256)
def load_library(name: str, family: str = "") -> Library:
    """The library of that name, inside a framework's family (by default the library's).

    Raises:
        ProfileError: there is no such library.
    """
    if (written := known_as(name, library_names())) is None:
        raise ProfileError(unknown("library", name, library_names()))
    name = written
    if name in _FIXED:
        return replace(_FIXED[name], family=family or _FIXED[name].family)
    version = name.removeprefix("cudnn-").removesuffix(HEURISTIC)
    # Torch was what most used cuDNN with until PyTorch came, in the year of cuDNN 7.
    usual = "torch7" if cudnn.VERSIONS.index(version) < cudnn.VERSIONS.index("v7") else "pytorch"
    return Library(
        name=name,
        family=family or usual,
        algorithms=cudnn.algorithms(version),
        choice="advised" if name.endswith(HEURISTIC) else "",
    )


def load_library_for(name: str, device: Device, precision: StepPrecision) -> Library:
    """The library of that name, if it can compute with ``precision`` on the device.

    Mixed precision needs no tensor cores: without, it moves half the bytes at the same FLOP/s.

    Raises:
        ProfileError: there is no such library, it does not run on the device, or it or the device
            cannot compute so.
    """
    library, platform = load_library(name), device.architecture.platform
    if platform not in library.platforms:
        able = [word for word in library_names() if platform in load_library(word).platforms]
        raise ProfileError(
            f"{library.name} does not run on {device.name}; there are {', '.join(able)}"
        )
    if platform == "cpu" and library.name == "im2col-gemm":
        library = replace(library, family="caffe-cpu")
    if precision not in ("fp32", "pytorch"):
        needed = device.half_type if precision == "amp" else precision
        able = [other for other, has in ABLE.items() if needed in has]
        if library.name not in able:
            raise ProfileError(f"{library.name} has no {needed} kernels (only {', '.join(able)})")
        if precision != "amp" and tensor_speedup(device, precision) == 1:
            raise ProfileError(f"{device.name} has no tensor cores for {precision}")
    return library


def _roofline(device: Device, work: Work, precision: Precision) -> list[Cost]:
    """The larger of FLOP over peak and bytes over bandwidth; no correction applies to it."""
    if work.kind == OpKind.UPDATE:
        return [elementwise.part_of_update(device, work, ())]
    launch = Cost(launch_s(device), "launch", (), flop=work.count.flop)
    costs = [_possible(device, work, launch, precision)]
    if work.fused:
        costs.append(elementwise.part_of_update(device, work, ()))
    return costs
