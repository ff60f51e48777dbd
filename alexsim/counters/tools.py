"""FLOP counters that other people wrote, each run on a plain module and read in detail.

A counter is imported only when it runs. Nothing here knows what its figures ought to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from alexsim.counters.operators import example, plain_name, run_training
from alexsim.counters.readings import Counter, Item, Reading
from alexsim.interchange.module import plain_module
from alexsim.network.network import Network


def _flop_counter_mode(network: Network) -> Reading:
    from torch.utils.flop_counter import FlopCounterMode

    def count(run: Callable[[nn.Module], object]) -> tuple[int, dict[tuple[str, str], int]]:
        module = plain_module(network, "meta")
        with FlopCounterMode(display=False) as mode:
            run(module)
        by_op = {
            (key.split(".")[1], plain_name(str(op))): int(value)
            for key, ops in mode.get_flop_counts().items()
            if key.count(".") == 1
            for op, value in ops.items()
        }
        return int(mode.get_total_flops()), by_op

    image, label = example(network, "meta")

    def only_input_gradients(module: nn.Module) -> None:
        run_training(module.requires_grad_(False), image.clone().requires_grad_(), label)

    total, forward = count(lambda module: module(image))
    trained, both = count(lambda module: run_training(module, image, label))
    _, inputs = count(only_input_gradients)
    # PyTorch computes no input gradient of the first layer, so its entry is all weight gradient.
    first = network.layers[0].name
    items: list[Item] = []
    for (layer, op), value in both.items():
        backward = value - forward.get((layer, op), 0)
        if value != backward:
            items.append(Item(layer=layer, op=op, value=value - backward))
        if (layer, op) in inputs and backward:
            share = 0 if layer == first else inputs[layer, op] - forward.get((layer, op), 0)
            items.append(Item(layer=layer, op=op, share="grad_input", value=share))
            items.append(Item(layer=layer, op=op, share="grad_weight", value=backward - share))
        elif backward:
            items.append(Item(layer=layer, op=op, value=backward))
    return Reading(
        unit="FLOP",
        forward=total,
        forward_items=tuple(
            Item(layer=layer, op=op, value=value) for (layer, op), value in forward.items()
        ),
        training=trained,
        training_items=tuple(items),
    )


def _profiler(network: Network) -> Reading:
    from torch.profiler import ProfilerActivity, profile

    image, label = example(network)

    def count(run: Callable[[nn.Module], object]) -> tuple[Item, ...]:
        module = plain_module(network)
        with profile(
            activities=[ProfilerActivity.CPU], with_flops=True, record_shapes=True
        ) as profiler:
            run(module)
        return tuple(
            Item(op=plain_name(event.key), value=int(event.flops))
            for event in profiler.key_averages()
            if event.flops
        )

    forward = count(lambda module: module(image))
    training = count(lambda module: run_training(module, image, label))
    return Reading(
        unit="FLOP",
        forward=sum(item.value for item in forward),
        forward_items=forward,
        training=sum(item.value for item in training),
        training_items=training,
    )


def _fvcore(network: Network) -> Reading:
    from fvcore.nn import FlopCountAnalysis

    module = plain_module(network)
    analysis = FlopCountAnalysis(module, (example(network)[0],))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    details = analysis.by_module_and_operator()
    return Reading(
        unit="flops",
        forward=int(analysis.total()),
        forward_items=tuple(
            Item(layer=layer, op=plain_name(op), value=int(value))
            for layer, _ in module.named_children()
            for op, value in details[layer].items()
        ),
        reported=tuple(sorted({plain_name(op) for op in analysis.unsupported_ops()})),
    )


def _ptflops_pytorch(network: Network) -> Reading:
    from ptflops import get_model_complexity_info, pytorch_engine

    module = plain_module(network)
    items: list[Item] = []
    layer = [""]

    # ptflops drops its counts when it returns, and its patched functions count for no module: both
    # are read while it runs.
    class Recorded(pytorch_engine.torch_function_wrapper):  # type: ignore[misc]
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            before = sum(self.collector)
            out = super().__call__(*arguments, **options)
            name, value = plain_name(self.op.__name__), int(sum(self.collector) - before)
            items.append(Item(layer=layer[0], op=name, value=value, again=True))
            return out

    def watch(_: object) -> torch.Tensor:
        for name, child in module.named_children():
            child.register_forward_pre_hook(lambda *_, n=name: layer.__setitem__(0, n))
            child.register_forward_hook(lambda *_, n=name, c=child: read(n, c))
        return example(network)[0]

    def read(name: str, child: nn.Module) -> None:
        items.append(Item(layer=name, value=sum(_counted(child.modules(), "flops"))))

    with _replaced(pytorch_engine, "torch_function_wrapper", Recorded):
        total, _ = get_model_complexity_info(
            module,
            network.input_shape,
            print_per_layer_stat=False,
            as_strings=False,
            input_constructor=watch,
        )
    by_module = {item.layer for item in items if item.value and not item.again}
    entries = tuple(replace(item, again=item.again and item.layer in by_module) for item in items)
    return Reading(unit="MAC", forward=int(total), forward_items=entries)


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _ptflops_aten(network: Network) -> Reading:
    from ptflops import aten_engine, get_model_complexity_info

    modes: list[Any] = []

    class Kept(aten_engine.FlopCounterMode):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            modes.append(self)

    with _replaced(aten_engine, "FlopCounterMode", Kept):
        total, _ = get_model_complexity_info(
            plain_module(network, "meta"),
            network.input_shape,
            print_per_layer_stat=False,
            as_strings=False,
            backend="aten",
        )
    items = tuple(
        Item(layer=layer, op=plain_name(str(op)), value=int(value))
        for layer, ops in modes[0].flop_counts.items()
        if layer != "Global"
        for op, value in ops.items()
    )
    return Reading(unit="MAC", forward=int(total), forward_items=items)


def _thop(network: Network) -> Reading:
    from thop import profile

    total, _, details = profile(
        plain_module(network, "meta"),
        inputs=(example(network, "meta")[0],),
        verbose=False,
        ret_layer_info=True,
    )
    items = tuple(Item(layer=name, value=int(counts[0])) for name, counts in details.items())
    return Reading(unit="MAC", forward=int(total), forward_items=items)


def _torchinfo(network: Network) -> Reading:
    from torchinfo import summary

    model = summary(
        plain_module(network, "meta"), input_data=(example(network, "meta")[0],), verbose=0
    )
    items = []
    for info in model.summary_list:
        if info.is_leaf_layer:
            top = info
            while top.depth > 1:
                top = top.parent_info
            items.append(Item(layer=top.var_name, value=int(info.macs)))
    return Reading(unit="mult-adds", forward=int(model.total_mult_adds), forward_items=tuple(items))


def _deepspeed(what: Literal["flops", "macs"]) -> Callable[[Network], Reading]:
    def read(network: Network) -> Reading:
        from deepspeed.profiling.flops_profiler import FlopsProfiler
        from deepspeed.profiling.flops_profiler import profiler as engine

        module = plain_module(network)
        items: list[Item] = []
        # Its hooks, registered later, throw away which function counted what.
        stack = getattr(engine, f"module_{what.removesuffix('s')}_count", [])
        for layer, child in module.named_children():
            for module_ in child.modules():
                module_.register_forward_hook(
                    lambda *_, n=layer: items.extend(_by_function(n, stack))
                )
        profiler = FlopsProfiler(module)
        profiler.start_profile()
        try:
            with torch.no_grad():
                module(example(network)[0])
            total = int(getattr(profiler, f"get_total_{what}")())
            by_layer = tuple(
                Item(layer=name, value=sum(_counted(child.modules(), what)))
                for name, child in module.named_children()
            )
        finally:
            profiler.end_profile()
        factor = _backward_rule(FlopsProfiler) if what == "flops" else None
        return Reading(
            unit="FLOP" if what == "flops" else "MAC",
            forward=total,
            forward_items=tuple(items) or by_layer,
            training=None if factor is None else (1 + factor) * total,
            backward_factor=factor,
        )

    return read


def _by_function(layer: str, stack: list[list[tuple[Any, int]]]) -> Iterator[Item]:
    for method, value in stack[-1] if stack else []:
        name = getattr(getattr(method, "__self__", None), "__name__", "")
        yield Item(layer=layer, op=plain_name(name), value=int(value))


def _counted(modules: Iterable[nn.Module], what: str) -> Iterable[int]:
    return (int(getattr(module, f"__{what}__", 0)) for module in modules)


def _backward_rule(profiler: type) -> int | None:
    """Forward passes that DeepSpeed takes a backward pass for: stated in its printing code only."""
    import inspect

    factor = re.search(r"bwd_factor = (\d+)", inspect.getsource(profiler))
    return int(factor[1]) if factor else None


COUNTERS: tuple[Counter, ...] = (
    Counter(name="torch FlopCounterMode", module="torch", package="torch", read=_flop_counter_mode),
    Counter(name="torch.profiler", module="torch", package="torch", read=_profiler),
    Counter(name="fvcore", module="fvcore", package="fvcore", read=_fvcore),
    Counter(name="ptflops pytorch", module="ptflops", package="ptflops", read=_ptflops_pytorch),
    Counter(name="ptflops aten", module="ptflops", package="ptflops", read=_ptflops_aten),
    Counter(name="thop", module="thop", package="thop", read=_thop),
    Counter(name="torchinfo", module="torchinfo", package="torchinfo", read=_torchinfo),
    Counter(
        name="DeepSpeed macs", module="deepspeed", package="deepspeed", read=_deepspeed("macs")
    ),
    Counter(
        name="DeepSpeed flops", module="deepspeed", package="deepspeed", read=_deepspeed("flops")
    ),
)
