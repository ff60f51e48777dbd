"""In which precision each op of a step computes: the words of ``--precision``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alexsim.costs.cost import PRECISIONS, Precision, Work
from alexsim.costs.gemm import peak_flop_per_s, tensor_speedup
from alexsim.machine.device import Device, HalfType
from alexsim.network.layers import Convolution, Layer, Operator
from alexsim.plan.choices import PlanPrecision

StepPrecision = Literal["fp32", "tf32", "fp16", "amp", "pytorch"]
"""``fp32``, ``tf32`` and ``fp16`` are those of every op but updates. ``amp``: of each op that of
PyTorch's autocast (see ``alexsim.plan.precision``). ``pytorch``: as PyTorch computes unless told
otherwise, convolutions in TF32 where there are tensor cores for it
(``torch.backends.cudnn.allow_tf32``), all else in float32."""
STEP_PRECISIONS: tuple[StepPrecision, ...] = (*PRECISIONS, "amp", "pytorch")
ABLE = {
    "cudnn-v7": ("fp16",),
    "cudnn-v7-heuristic": ("fp16",),
    "cudnn-v8": ("fp16", "tf32", "bf16"),
    "cudnn-v8-heuristic": ("fp16", "tf32", "bf16"),
    "roofline": ("fp16", "tf32", "bf16"),
}
"""What libraries have tensor-core kernels for, beside float32."""


def plan_precision(word: StepPrecision) -> PlanPrecision:
    """Precision of the plan that is simulated so."""
    return "amp" if word == "amp" else "fp32"


def op_precision(word: StepPrecision, device: Device, library: str, work: Work) -> Precision:
    """The precision that an op computes in; half precision is called ``fp16`` whichever it is."""
    if word == "amp":
        return "fp16" if work.half else "fp32"
    if word == "pytorch":
        return "tf32" if convolves(work.part.layer) and takes_tf32(device, library) else "fp32"
    return word


def best_precision(word: StepPrecision, device: Device, library: str) -> Precision:
    """The fastest precision of any op: utilisation is a share of its peak."""
    if word == "pytorch":
        return "tf32" if takes_tf32(device, library) else "fp32"
    return "fp16" if word == "amp" else word


def convolves(layer: Layer) -> bool:
    """Whether cuDNN's convolutions do a layer."""
    if isinstance(layer, Operator):
        return layer.target.removeprefix("_").startswith("conv")
    return isinstance(layer, Convolution)


def takes_tf32(device: Device, library: str) -> bool:
    """Whether a library's convolutions take TF32 on a device unless told otherwise."""
    return "tf32" in ABLE.get(library, ()) and tensor_speedup(device, "tf32") > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """How a step computes, in facts that do not depend on its times."""

    precision: StepPrecision
    half_type: HalfType | Literal[""]
    """What half precision is; empty where there is none."""
    tensor_cores: bool
    """Whether tensor cores do the products."""
    tf32_by_default: bool
    """Whether PyTorch itself would run this step's convolutions in TF32."""


def computed(
    word: StepPrecision, device: Device, library: str, layers: tuple[Layer, ...]
) -> Computed:
    """How a step of these layers computes."""
    best = best_precision(word, device, library)
    half: HalfType | Literal[""] = device.half_type if word == "amp" else ""
    return Computed(
        precision=word,
        half_type="fp16" if word == "fp16" else half,
        tensor_cores=peak_flop_per_s(device, best) > device.flop_per_s,
        tf32_by_default=library.startswith("cudnn")
        and takes_tf32(device, library)
        and any(map(convolves, layers)),
    )
