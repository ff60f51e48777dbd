"""Compiles every kernel without a GPU, and says what came out.

``python -m alexsim_kernels.compiled --arch 90`` prints a line of JSON per kernel. What is on record
(``compiled.csv``) is not compiled again; ``--anew softmax`` does so for ops of that name,
``--anew`` for all, and ``--record`` writes the file.

Kernels go through their real launch path, on tensors without memory, with a driver that compiles
for a card that is not there and launches nothing. Registers, stack and instructions are read from
the machine code by the tools that Triton brings. Must run in a separate process: interpreted and
compiled kernels do not mix.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.backends.nvidia.driver import CudaLauncher

from alexsim_kernels import (
    convolution,
    convolution_weight,
    dropout,
    linear,
    loss,
    norm,
    norm_pool,
    pool,
    update,
)
from alexsim_kernels.code import KernelCode
from alexsim_kernels.common import PRECISIONS, Config, Precision
from alexsim_kernels.machine_code import read
from alexsim_kernels.recorded import COMPILED, key_of, named, record, recorded
from alexsim_kernels.shapes import ALEXNET, Convolution
from alexsim_kernels.tuning import SHARED_BYTES


class CompilingDriver(DriverBase):  # type: ignore[misc]
    """Stands in for a card: compiles, keeps the code, launches nothing."""

    def __init__(self, arch: int, known: Mapping[str, KernelCode]) -> None:
        super().__init__()
        self.target = GPUTarget("cuda", arch, 32)
        self.utils = self
        self.known = known
        self.op = self.precision = ""
        """What is launched."""
        self.codes: list[tuple[str, KernelCode]] = []
        """Of it, each kernel's key and code."""
        self.launchers = False
        """On a card's machine: make what launches a kernel, too, and read no machine code."""
        self.launched: list[tuple[str, KernelCode, int]] = []
        """Each launch's key, kernel and number of programs, of those that were compiled here."""
        self._seen: set[str] = set()
        self._key = ""
        self._launcher: list[KernelCode] = []
        self._made: dict[str, Any] = {}
        """Of the kernel that is being compiled."""
        knobs.runtime.jit_cache_hook = self._asked

    @classmethod
    def is_active(cls) -> bool:
        return False

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_BYTES[self.target.arch], "multiprocessor_count": 132}

    def get_benchmarker(self) -> Callable[..., object]:
        raise RuntimeError("nothing can be timed without a card")

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def launcher_cls(self, src: object, metadata: object) -> Callable[..., None]:
        names = src.fn.arg_names  # type: ignore[attr-defined]
        constants = {names[path[0]]: value for path, value in src.constants.items()}  # type: ignore[attr-defined]
        block = "x".join(str(constants[name]) for name in names if name.startswith("BLOCK_"))
        self._made = {
            "block": block,
            "warps": metadata.num_warps,  # type: ignore[attr-defined]
            "stages": metadata.num_stages,  # type: ignore[attr-defined]
        }
        if self.launchers:
            with contextlib.suppress(Exception):  # made later, when it is launched
                CudaLauncher(src, metadata)
            return lambda *_: None
        made: list[KernelCode] = []
        self._launcher, key = made, self._key

        def launch(x: int, y: int, z: int, *_: object) -> None:
            self.launched.append((key, made[0], x * y * z))

        return launch

    def load_binary(
        self, name: str, code: bytes, shared: int, _device: int
    ) -> tuple[int, int, int, int, int]:
        if self.launchers:
            return 1, 1, 0, 0, 1024
        made = KernelCode(
            op=self.op,
            kernel=name,
            precision=self.precision,
            arch=self.target.arch,
            shared_bytes=shared,
            **asdict(read(code)),
            **self._made,
        )
        self.codes.append((self._key, made))
        self._launcher.append(made)
        return 1, 1, 0, 0, 1024

    def _asked(self, *, fn: Any, compile: Mapping[str, Any], **_: object) -> bool:
        """Triton's question before it compiles: whether it need not."""
        self._key = key_of(fn.jit_function, compile)
        if (code := self.known.get(self._key)) and self._key not in self._seen:
            self.codes.append((self._key, named(code, self.op, self.precision)))
        self._seen.add(self._key)
        return code is not None


_BATCH = 128
"""Images of a step."""
Case = tuple[str, str, Callable[[], object]]
"""An op's name, its precision, and what launches it."""


def cases(precisions: tuple[Precision, ...]) -> Iterator[Case]:
    """Every kernel as one column of AlexNet at 128 images uses it: name, precision, launch."""
    for name, shape in ALEXNET.items():
        for precision in precisions:
            yield from _convolution(name, shape, precision)
    for name, inputs, units in (("fc6", 9216, 2048), ("fc8", 4096, 1000)):
        for precision in precisions:
            yield from _linear(name, inputs, units, precision)
    yield from _others()


def _images(channels: int, extent: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return _channels_last(_BATCH, channels, (extent, extent), dtype)


def _channels_last(
    count: int, channels: int, extent: tuple[int, int], dtype: torch.dtype
) -> torch.Tensor:
    images = torch.empty(count, *extent, channels, device="meta", dtype=dtype)
    return images.permute(0, 3, 1, 2)


def _dtype(precision: Precision) -> torch.dtype:
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


def passes(
    shape: Convolution, precision: Precision
) -> dict[str, Callable[[Config | None], object]]:
    """What launches the passes of a convolution with a tile, on tensors without memory, with a ReLU
    and its mask as in training."""
    dtype = _dtype(precision)
    x = _channels_last(_BATCH, shape.channels, shape.extent, dtype)
    y = _channels_last(_BATCH, shape.filters, shape.out, dtype)
    channels = shape.channels // shape.groups
    weight = _channels_last(shape.filters, channels, shape.taps, dtype)
    bias = torch.empty(shape.filters, device="meta")
    options: dict[str, Any] = {
        "stride": shape.stride,
        "padding": (shape.padding, shape.padding),
        "groups": shape.groups,
        "precision": precision,
    }
    masked = options | {"relu_output": y}
    made: dict[str, Callable[[Config | None], object]] = {
        "forward": lambda c: convolution.forward(
            x, weight, bias, y, relu=True, config=c, **options
        ),
        "grad_input": lambda c: convolution.grad_input(y, weight, x, config=c, **masked),
        "grad_weight": lambda c: convolution_weight.grad_weight(
            x, y, weight.float(), bias, config=c, **masked
        ),
    }
    if shape.images_alone:
        del made["grad_input"]
    return made


def _convolution(name: str, shape: Convolution, precision: Precision) -> Iterator[Case]:
    for pass_, launch in passes(shape, precision).items():
        yield f"{name} {pass_}", precision, partial(launch, None)


def _products(inputs: int, units: int, precision: Precision) -> dict[str, Callable[[], object]]:
    """What launches the passes of a fully connected layer, with a ReLU, its mask and the update."""
    dtype = _dtype(precision)
    x, y, weight = (
        torch.empty(shape, device="meta", dtype=dtype)
        for shape in ((_BATCH, inputs), (_BATCH, units), (units, inputs))
    )
    bias, constants = torch.empty(units, device="meta"), torch.empty(3, device="meta")
    momentum, weights = weight.float(), weight.float()
    options: dict[str, Any] = {"precision": precision}
    masked = options | {"relu_output": y}
    return {
        "forward": partial(linear.forward, x, weight, bias, y, relu=True, **options),
        "grad_input": partial(linear.grad_input, y, weight, x, **masked),
        "grad_weight": partial(
            linear.grad_weight, x, y, momentum, bias, momentum_of=(weights, constants), **masked
        ),
    }


def _linear(name: str, inputs: int, units: int, precision: Precision) -> Iterator[Case]:
    for pass_, launch in _products(inputs, units, precision).items():
        yield f"{name} {pass_}", precision, launch


def _others() -> Iterator[Case]:
    x, y = _images(48, 55), _images(48, 27)
    window: dict[str, Any] = {"size": 3, "stride": 2}
    launches: list[tuple[str, Callable[[], object]]] = [
        ("pool1 forward", partial(pool.forward, x, y, **window))
    ]
    for ties in ("all", "first"):
        backward = partial(pool.backward, x, y, y, x, ties=ties, **window)
        launches.append((f"pool1 backward, {ties}", backward))
    power: dict[str, Any] = {"size": 5, "alpha": 2e-5, "beta": 0.75}
    norms = power | {"k": 2.0}
    for d, denominators in ((x, "kept"), (None, "anew")):
        launches += [
            (
                f"norm1 forward, {denominators}",
                partial(norm.across_channels_forward, x, x, d, **norms),
            ),
            (
                f"norm1 backward, {denominators}",
                partial(norm.across_channels_backward, x, d, x, x, **norms),
            ),
        ]
    bits = norm_pool.winners_like(y, 3)
    pooling: dict[str, Any] = {"window": 3, "stride": 2}
    rows, column = torch.empty(128, 1000, device="meta"), torch.empty(128, device="meta")
    labels = torch.empty(128, device="meta", dtype=torch.int64)
    weight, constants = torch.empty(2048, 4096, device="meta"), torch.empty(3, device="meta")
    mask, step = torch.empty(128, 2048, device="meta"), labels[:1]
    launches += [
        (
            "norm1+pool1 forward",
            partial(norm_pool.forward, x, y, bits, ties="all", **norms, **pooling),
        ),
        (
            "norm1+pool1 backward",
            partial(norm_pool.backward, x, bits, y, x, **norms, **pooling),
        ),
        ("spatial norm forward", partial(norm.over_pixels_forward, x, x, x, **norms)),
        ("spatial norm backward", partial(norm.over_pixels_backward, x, x, x, x, **power)),
        ("softmax", partial(loss.softmax, rows, rows)),
        ("cross-entropy", partial(loss.cross_entropy, rows, labels, column, column, column)),
        ("softmax backward", partial(loss.backward, rows, labels, rows)),
        ("update", partial(update.sgd, weight, weight, weight, constants)),
        ("update, fused", partial(update.sgd, weight, weight, None, constants)),
        ("dropout", partial(dropout.keep, mask, step, (1, 2), first_unit=0, rate=0.5)),
    ]
    for name, launch in launches:
        yield name, "fp32", launch


def compile_all(
    arch: int, precisions: tuple[Precision, ...], known: Mapping[str, KernelCode]
) -> Iterator[tuple[str, KernelCode, int, int]]:
    """Compile for one architecture what is not known; of each kernel its first op.

    Yields:
        Its key and code, how many ops are compiled, and how many there are.
    """
    driver = CompilingDriver(arch, known)
    triton.runtime.driver.set_active(driver)
    all_cases = list(cases(precisions))
    for done, (op, precision, launch) in enumerate(all_cases, start=1):
        driver.op, driver.precision = op, precision
        driver.codes.clear()
        launch()
        for key, code in driver.codes:
            yield key, code, done, len(all_cases)


def main() -> None:
    """Print one JSON document per kernel, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, choices=SHARED_BYTES, required=True)
    parser.add_argument("--precision", choices=list(PRECISIONS), action="append")
    parser.add_argument("--no-spills", action="store_true", help="fail if a kernel spills")
    parser.add_argument("--anew", nargs="*", metavar="OP", help="compile these, or all")
    parser.add_argument("--record", action="store_true", help="put all on record")
    arguments = parser.parse_args()
    if arguments.record and arguments.precision:
        parser.error("--record is of all precisions")
    precisions = tuple(arguments.precision or PRECISIONS)
    known = {} if arguments.anew == [] else recorded(COMPILED)
    known = {k: code for k, code in known.items() if code.op not in (arguments.anew or ())}
    codes = []
    for key, code, done, count in compile_all(arguments.arch, precisions, known):
        codes.append((key, code))
        more = {"recorded": key in known, "done": done, "all": count}
        line = json.dumps(asdict(code) | more, allow_nan=False)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        if arguments.no_spills and code.spills:
            sys.exit(f"{code.op} spills with Triton {triton.__version__}")
    if arguments.record:
        record(COMPILED, [(key, code, {}) for key, code in codes], arguments.arch)


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("kernels are interpreted in this process: unset TRITON_INTERPRET")
    main()
