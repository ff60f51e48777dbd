"""Bytes per GPU against the tables worked out from the released source, and the packing bound."""

from __future__ import annotations

import pytest
from chains import CHAINS
from drawn import networks
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import some_ops

from alexsim.budget.fit import fit
from alexsim.editions.load import load_network
from alexsim.ledger.tables import memory_table
from alexsim.network.network import Network
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan
from alexsim.units import MIB

CARD_BYTES = 3_220_897_792

# MiB at batch 128: GPU 0 and GPU 1, as released and with in-place neurons.
GROUPS = {
    "input": (147.0, 147.0, 147.0, 147.0),
    "activation": (454.2, 453.2, 374.9, 374.0),
    "activation_grad": (454.2, 453.2, 353.6, 352.6),
    "norm": (162.0, 162.0, 162.0, 162.0),
    "mask": (2.0, 2.0, 2.0, 2.0),
    "remote": (14.8, 13.8, 14.8, 13.8),
    "remote_grad": (14.8, 13.8, 14.8, 13.8),
    "weight": (124.1, 108.4, 124.1, 108.4),
    "momentum": (124.1, 108.4, 124.1, 108.4),
    "weight_grad": (4.5, 4.5, 4.5, 4.5),
    "partial_sum": (221.0, 221.0, 221.0, 221.0),
}
TOTALS = (1722.7, 1687.5, 1542.9, 1507.6)

# GPU 0, as released.
LAYERS = {
    "conv1": 182.21,
    "norm1": 212.70,
    "pool1": 34.17,
    "relu1": 34.17,
    "conv2": 235.27,
    "relu2": 91.12,
    "norm2": 136.69,
    "spatial_norm2": 136.69,
    "pool2": 21.12,
    "pool2.remote": 21.12,
    "conv3": 47.72,
    "relu3": 31.69,
    "conv4": 51.94,
    "relu4": 31.69,
    "conv5": 34.63,
    "pool5": 4.50,
    "relu5": 4.50,
    "relu5.remote": 4.50,
    "fc6": 146.02,
    "relu6": 2.00,
    "dropout6": 3.00,
    "dropout6.remote": 2.00,
    "fc7": 66.02,
    "relu7": 2.00,
    "dropout7": 3.00,
    "dropout7.remote": 2.00,
    "fc8": 32.24,
    "softmax": 0.98,
}


@pytest.mark.parametrize(("policy", "first"), [("as-released", 0), ("in-place", 2)])
def test_groups_are_those_of_2012(policy: str, first: int) -> None:
    devices = memory_table(plan(load_network("alexnet-2012"), policy=policy))
    for gpu, device in enumerate(devices):
        for category, expected in GROUPS.items():
            got = device.by_category[category] / MIB
            assert got == pytest.approx(expected[first + gpu], abs=0.1), (category, gpu)
        assert device.total_bytes / MIB == pytest.approx(TOTALS[first + gpu], abs=0.1)


def test_layers_are_those_of_2012() -> None:
    gpu0, _ = memory_table(plan(load_network("alexnet-2012")))
    for layer, expected in LAYERS.items():
        assert gpu0.by_layer[layer] / MIB == pytest.approx(expected, abs=0.006), layer


@pytest.mark.parametrize(
    ("name", "batch", "released", "in_place"),
    [
        ("alexnet-2012", 128, 3205.9, 2846.2),
        ("alexnet-2012", 96, 2633, 2364),
        ("alexnet-2012", 64, 2061, 1881),
        ("alexnet-1gpu", 128, 1956.2, 1768.1),
    ],
)
def test_whole_nets_on_one_card(name: str, batch: int, released: float, in_place: float) -> None:
    for policy, expected in (("as-released", released), ("in-place", in_place)):
        made = plan(load_network(name), gpus=1, batch_size=batch, policy=policy)
        (device,) = memory_table(made)
        assert device.total_bytes / MIB == pytest.approx(expected, abs=0.5)


def test_both_sums_of_a_table_agree_and_the_context_is_a_line_of_its_own() -> None:
    for policy in ("as-released", "in-place", "reuse"):
        made = plan(load_network("alexnet-2012"), policy=policy, backend="aten")
        for device, part in zip(memory_table(made, context_bytes=10**8), made.devices, strict=True):
            assert device.total_bytes == sum(device.by_layer.values())
            assert device.total_bytes == part.total_bytes + 10**8
            assert device.by_category["context"] == 10**8


def live_peak(made: Plan) -> list[int]:
    """The most bytes alive at one op, from the buffers' lifetimes alone."""
    peaks = []
    for device in made.devices:
        places: dict[tuple[str, int], tuple[int, int, int]] = {}
        for buffer in device.buffers:
            key = (buffer.block, buffer.channel)
            size, first, last = places.get(key, (0, buffer.first, buffer.last))
            places[key] = (
                max(size, buffer.size_bytes),
                min(first, buffer.first),
                max(last, buffer.last),
            )
        peaks.append(
            max(
                sum(size for size, first, last in places.values() if first <= at <= last)
                for at in range(len(device.ops))
            )
        )
    return peaks


def assert_sound(made: Plan) -> None:
    """No two blocks that live at once overlap; every touch falls in the buffer's life."""
    for device in made.devices:
        for i, a in enumerate(device.blocks):
            assert a.offset_bytes + a.size_bytes <= device.arena_bytes
            for b in device.blocks[:i]:
                apart_in_time = a.last < b.first or b.last < a.first
                apart = (
                    a.offset_bytes + a.size_bytes <= b.offset_bytes
                    or b.offset_bytes + b.size_bytes <= a.offset_bytes
                )
                assert apart_in_time or apart, (a.name, b.name)
        buffers = {buffer.name: buffer for buffer in device.buffers}
        blocks = {block.name: block for block in device.blocks}
        barriers = [i for i, op in enumerate(device.ops) if op.kind == "barrier"]
        for position, op in enumerate(device.ops):
            if op.kind == "exchange_post":
                # The other device pulls after the next barrier, or any time after the post.
                serial = made.spec.schedule == "serial"
                pulled = next(i for i in barriers if i > position) if serial else position
                assert buffers[op.reads[0]].last > pulled, op.id
            for name in (*op.reads, *op.writes):
                if name in buffers:
                    buffer = buffers[name]
                    assert buffer.first <= position <= buffer.last, (op.id, name)
                    block = blocks[buffer.block]
                    assert block.first <= buffer.first
                    assert buffer.last <= block.last


@pytest.mark.parametrize("batch", [1, 100, 128, 256])
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("name", CHAINS)
def test_reuse_needs_at_most_two_percent_over_what_is_alive(
    name: str, schedule: str, batch: int
) -> None:
    made = plan(
        load_network(name), policy="reuse", schedule=schedule, batch_size=batch, backend="aten"
    )
    assert_sound(made)
    for device, peak in zip(made.devices, live_peak(made), strict=True):
        assert device.live_peak_bytes == peak
        assert device.arena_bytes <= 1.02 * peak + 64 * len(device.blocks)


@given(
    network=networks(),
    one=st.booleans(),
    schedule=st.sampled_from(["serial", "overlap"]),
    policy=st.sampled_from(["as-released", "in-place", "reuse"]),
    backend=st.sampled_from(["", "aten", "triton", "mixed"]),
    fusion=st.sampled_from(["none", "kernels"]),
    trained=st.sampled_from([None, frozenset({"fc2"}), frozenset({"conv0"})]),
)
@settings(max_examples=80, deadline=None)
def test_any_chain_plans_soundly(
    network: Network,
    one: bool,
    schedule: str,
    policy: str,
    backend: str,
    fusion: str,
    trained: object,
) -> None:
    made = plan(
        network,
        gpus=1 if one else None,
        batch_size=3,
        schedule=schedule,
        policy=policy,
        backend="aten" if backend == "mixed" else backend,
        triton_ops=some_ops(network) if backend == "mixed" else (),
        fusion=fusion,
        trainable=trained,
    )
    assert_sound(made)
    sent = {e.name: e.size_bytes for e in made.exchanges}
    posted = [op.exchange for op in made.ops() if op.kind == "exchange_post"]
    pulled = [op.exchange for op in made.ops() if op.kind == "exchange_wait"]
    assert sorted(posted) == sorted(pulled) == sorted(sent)
    ids = [op.id for op in made.ops()]
    assert len(set(ids)) == len(ids)
    for op in made.ops():
        assert set(op.depends_on) <= set(ids), op.id


def test_a_whole_net_on_one_card_is_refused_and_what_fits_is_said() -> None:
    network = load_network("alexnet-2012")
    verdict = fit(plan(network, gpus=1), CARD_BYTES)
    assert not verdict.fits
    (shortage,) = verdict.shortages
    assert shortage.over_bytes == shortage.need_bytes - CARD_BYTES > 0
    assert verdict.suggestions == (
        f"--batch {verdict.largest_batch_size}",
        "--policy in-place",
        "--gpus 2",
    )
    # What is suggested fits, and one image more does not.
    largest = verdict.largest_batch_size
    assert fit(plan(network, gpus=1, batch_size=largest), CARD_BYTES).fits
    assert not fit(plan(network, gpus=1, batch_size=largest + 1), CARD_BYTES).fits
    assert fit(plan(network, gpus=1, policy="in-place"), CARD_BYTES).fits
    assert fit(plan(network, gpus=2), CARD_BYTES).fits
    message = str(verdict.error())
    assert "conv2.a.partial_sum 142.4 MiB" in message
    assert "\n" not in message


def test_nothing_fits_in_a_megabyte() -> None:
    verdict = fit(plan(load_network("alexnet-2012")), MIB)
    assert verdict.largest_batch_size == 0
    assert verdict.suggestions == ()
    assert "nothing smaller fits" in str(verdict.error())
