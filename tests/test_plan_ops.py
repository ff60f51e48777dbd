"""What happens when: exchanges, order, dependencies, pruning."""

from __future__ import annotations

import pytest
from mixed import some_ops

from alexsim.editions.load import load_network
from alexsim.errors import PlanError
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan

# Layer: bytes each way, and the columns whose values cross.
EXCHANGES = {
    "pool2": (11_075_584, "ab"),
    "relu5": (2_359_296, "ab"),
    "dropout6": (1_048_576, "ab"),
    "dropout7": (1_048_576, "b"),
}

HYBRID = {"partition": "hybrid", "gpus": 3, "batch_size": 96}


@pytest.fixture(scope="module")
def two_gpus() -> Plan:
    return plan(load_network("alexnet-2012"))


def test_exchanges_are_those_of_2012(two_gpus: Plan) -> None:
    expected = {
        (layer, column, direction): size
        for layer, (size, columns) in EXCHANGES.items()
        for column in columns
        for direction in ("forward", "backward")
    }
    got = {(e.layer, "ab"[e.column], e.direction): e.size_bytes for e in two_gpus.exchanges}
    assert got == expected
    assert two_gpus.exchanged_bytes == 57.25 * 2**20
    for source in ("gpu0", "gpu1"):
        sent = sum(e.size_bytes for e in two_gpus.exchanges if e.source == source)
        assert sent == 28.625 * 2**20
    uploads = [op.count.moved_bytes for op in two_gpus.ops() if op.kind == OpKind.UPLOAD]
    assert uploads == [73.5 * 2**20] * 2


def test_serial_is_the_schedule_of_2012(two_gpus: Plan) -> None:
    for device in two_gpus.devices:
        order = {op.id: i for i, op in enumerate(device.ops)}
        letter = "ab"[device.columns[0]]
        for layer in ("conv2", "conv3", "fc6", "fc7"):
            weight = order[f"{layer}.{letter}.grad_weight"]
            assert weight < order[f"{layer}.{letter}.grad_input"]
        assert {op.queue for op in device.ops} == {"compute"}
        barriers = [op.id.partition(".")[2] for op in device.ops if op.kind == OpKind.BARRIER]
        assert barriers == [
            "barrier.pool2.forward",
            "barrier.relu5.forward",
            "barrier.dropout6.forward",
            "barrier.dropout7.forward",
            "barrier.cost",
            "barrier.dropout7.backward",
            "barrier.dropout6.backward",
            "barrier.relu5.backward",
            "barrier.pool2.backward",
            "barrier.update",
            "barrier.end",
        ]
    on_gpu1 = {op.layer for op in two_gpus.devices[1].ops}
    assert not on_gpu1 & {"fc8", "softmax"}


def test_overlap_computes_input_gradients_first_and_copies_beside() -> None:
    made = plan(load_network("alexnet-2012"), schedule="overlap")
    order = {op.id: i for i, op in enumerate(made.devices[0].ops)}
    posted = order["pool2.b.backward.gpu0-gpu1.post"]
    assert order["conv3.a.grad_input"] < posted < order["conv3.a.grad_weight"]
    assert order["conv3.a.grad_weight"] < order["pool2.a.backward.gpu1-gpu0.accumulate"]
    queues = {op.kind: op.queue for op in made.devices[0].ops}
    assert queues[OpKind.POST] == "copy_out"
    assert queues[OpKind.WAIT] == queues[OpKind.UPLOAD] == "copy_in"
    assert made.exchanged_bytes == 57.25 * 2**20


def test_dependencies_order_every_touch_of_a_buffer() -> None:
    """Whatever order the dependencies allow, a reader sees what its writer wrote."""
    for schedule, choices in (
        ("serial", {}),
        ("overlap", {}),
        ("serial", HYBRID),
        ("overlap", HYBRID),
        ("overlap", {"triton_ops": some_ops(load_network("alexnet-2012")), "fusion": "kernels"}),
    ):
        net = load_network("alexnet-owt" if choices == HYBRID else "alexnet-2012")
        made = plan(net, schedule=schedule, policy="reuse", backend="aten", **choices)
        before: dict[str, set[str]] = {}
        waiting = {op.id: op for op in made.ops()}
        while waiting:
            ready = [op for op in waiting.values() if set(op.depends_on) <= before.keys()]
            assert ready, "a cycle"
            for op in ready:
                del waiting[op.id]
                before[op.id] = set(op.depends_on).union(*(before[i] for i in op.depends_on))
        for device in made.devices:
            place = {b.name: (b.block, b.channel) for b in device.buffers}
            written: dict[tuple[str, int], str] = {}
            for op in device.ops:
                for name in op.reads:
                    writer = written.get(place.get(name, ("", 0)))
                    assert writer is None or writer in before[op.id] | {op.id}, (op.id, name)
                for name in op.writes:
                    written[place[name]] = op.id


def test_training_only_the_last_layer_prunes_what_it_does_not_need() -> None:
    network = load_network("alexnet-2012")
    whole, last = plan(network), plan(network, trainable=frozenset({"fc8"}))
    kinds = {(op.kind, op.layer) for op in last.ops()}
    assert (OpKind.GRAD_WEIGHT, "fc8") in kinds
    assert not [k for k in kinds if k[0] == OpKind.GRAD_INPUT and k[1] != "softmax"]
    assert [e.direction for e in last.exchanges] == ["forward"] * 7
    for a, b in zip(whole.devices, last.devices, strict=True):
        assert b.total_bytes < a.total_bytes
    frozen = plan(network, trainable=frozenset(network.weighted_layers) - {"conv1"})
    gone = {op.id for op in whole.ops()} - {op.id for op in frozen.ops()}
    # Layer 1's backward work, and conv2's input gradient (released source, epoch 72 on).
    assert gone == {
        f"{layer}.{column}.{kind}"
        for column in "ab"
        for layer, kind in (
            ("conv1", "grad_weight"),
            ("conv1", "update"),
            ("norm1", "grad_input"),
            ("pool1", "grad_input"),
            ("relu1", "grad_input"),
            ("conv2", "grad_input"),
        )
    }


def test_a_new_head_lives_on_gpu_0() -> None:
    made = plan(load_network("alexnet-6conv+10-classes"))
    assert made.network.classes == 10
    assert {op.device for op in made.ops() if op.layer == "fc8"} == {"gpu0"}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"gpus": 3}, "gpus must be 1 or 2, got 3"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"policy": "none"}, "as-released, in-place, reuse, pytorch; got 'none'"),
        ({"schedule": "x"}, "serial, overlap; got 'x'"),
        ({"partition": "rows"}, "columns, replicas, hybrid; got 'rows'"),
        ({"transport": "x"}, "peer, host; got 'x'"),
        ({"trainable": frozenset({"conv9"})}, "no layer with weights 'conv9'"),
    ],
)
def test_choices_out_of_range_are_named(choices: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(load_network("alexnet-2012"), **choices)
