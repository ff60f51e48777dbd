"""Sums and copies among devices: what must hold of every library, and rows of published ones."""

import itertools
import json
import math
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.editions.load import load_network
from alexsim.fidelity.rows import Case
from alexsim.fidelity.several import held_tensors, replicated_s, setting_of
from alexsim.fidelity.transfer_rows import transfer_s
from alexsim.fidelity.validation import all_rows
from alexsim.machine.collectives import all_gather_s, all_reduce_s, broadcast_s, load_nccl, send_s
from alexsim.machine.link import load_link
from alexsim.machine.machine import Collectives, Machine, changed, load_machine, machine_names
from alexsim.machine.paths import between, from_host, to_host

ROUND = 1 + 1e-9
LAWS = settings(deadline=None, derandomize=True, max_examples=150)
LIBRARIES = get_args(Collectives)
BETTER = {
    "link.bytes_per_s": 2, "link.efficiency": 1.1, "link.return_efficiency": 1.1,
    "link.latency_s": 0.5, "link.ramp_bytes": 0.5, "uplink.bytes_per_s": 2,
    "peer_link.bytes_per_s": 2, "network.bytes_per_s": 2, "network.latency_s": 0.5,
    "socket_bytes_per_s": 2, "devices_per_socket": 2, "host_staging_bytes_per_s": 2,
}  # fmt: skip
"""Numbers that transfers depend on, and what makes each better."""


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """A machine or cards on a network, by any library, its numbers off by up to a factor of 8."""
    name = draw(st.sampled_from((*machine_names(), "rtx2080-ti", "a6000", "p100-pcie", "k40")))
    machine = load_machine(name, "", draw(st.sampled_from(("10gbe", "ib-edr"))))
    machine = replace(machine, collectives=draw(st.sampled_from(LIBRARIES)))
    machine = changed(machine, {"link.ramp_bytes": draw(st.sampled_from((0, 1e5, 1e7)))})
    for key in draw(st.sets(st.sampled_from(sorted(BETTER)), max_size=3)):
        if (now := number(machine, key)) is not None and not key.endswith("efficiency"):
            factor = 2.0 ** draw(st.integers(-3, 3))
            machine = changed(machine, {key: max(1, int(now * factor)) if "per_" in key else now})
    for key in ("devices_per_uplink", "devices_per_node"):
        machine = changed(machine, {key: draw(st.sampled_from([1, 2, 4, 8]))})
    return machine


def number(machine: Machine, key: str) -> float | None:
    owner, _, name = key.rpartition(".")
    record = getattr(machine, owner) if owner else machine
    quantity = None if record is None else getattr(record, name)
    return None if quantity is None else float(quantity.value)


def all_s(machine: Machine, count: int, size: int, peer: bool) -> dict[str, float]:
    """Seconds of every transfer there is."""
    return {
        "all-reduce": all_reduce_s(machine, count, size, peer=peer),
        "in columns": all_reduce_s(machine, count, size, peer=peer, columns=2),
        "all-gather": all_gather_s(machine, count, size, peer=peer),
        "broadcast": broadcast_s(machine, count, size, peer=peer),
        "apart": send_s(machine, size, peer=peer, apart=True),
        "upload": from_host(machine, 1, size, alike=count).seconds,
        "download": to_host(machine, 0, 1, size).seconds,
        "between": between(machine, 0, 1, size).seconds,
    }


SIZES = st.integers(1, 30).map(lambda power: 2**power) | st.integers(1, 10**9)
COUNTS = st.sampled_from([2, 3, 4, 8, 16, 64])


@LAWS
@given(machines(), COUNTS, SIZES, st.booleans(), st.sampled_from(sorted(BETTER)))
def test_better_links_are_never_slower(
    machine: Machine, count: int, size: int, peer: bool, key: str
) -> None:
    now = number(machine, key)
    if now is None:
        return
    then = min(1.0, now * BETTER[key]) if key.endswith("efficiency") else now * BETTER[key]
    before = all_s(machine, count, size, peer)
    after = all_s(changed(machine, {key: then}), count, size, peer)
    for what, seconds in before.items():
        assert after[what] <= seconds * ROUND, what


@LAWS
@given(machines(), COUNTS, SIZES, st.booleans())
def test_more_bytes_take_longer_and_never_more_than_their_share(
    machine: Machine, count: int, size: int, peer: bool
) -> None:
    """A ramp only: twice the bytes take at most twice the time, however the protocols change."""
    single, double = (all_s(machine, count, size * times, peer) for times in (1, 2))
    for what, seconds in single.items():
        assert seconds < double[what] <= 2 * seconds * ROUND, what


@LAWS
@given(machines(), COUNTS, SIZES)
def test_the_hosts_memory_is_no_short_cut_and_more_devices_no_help(
    machine: Machine, count: int, size: int
) -> None:
    inside = replace(changed(machine, {"devices_per_node": 64}), peer_link=None)
    peer, staged = (all_reduce_s(inside, count, size, peer=peer) for peer in (True, False))
    if machine.collectives != "host":
        assert peer <= staged * ROUND
    fewer = all_reduce_s(inside, 2, size, peer=False)
    assert fewer <= staged * ROUND


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_sum_of_one_is_nothing(library: Collectives) -> None:
    machine = replace(load_machine("p100-pcie"), collectives=library)
    assert all_reduce_s(machine, 1, 10**6, peer=True) == 0.0
    assert broadcast_s(machine, 1, 10**6, peer=True) == 0.0


def test_sums_by_hand() -> None:
    """64 MB on four cards at 1 GB/s without latency: what each library moves over a link."""
    machine = replace(load_machine("titan-blackx4"), collectives="copies")
    for link in ("link", "uplink"):
        machine = changed(
            machine, {f"{link}.bytes_per_s": 1e9, f"{link}.efficiency": 1, f"{link}.latency_s": 0}
        )
    machine = changed(machine, {"devices_per_uplink": 4, "host_staging_bytes_per_s": 1e9})
    nccl = load_nccl()
    steps_s = nccl.launch_s.value + nccl.fence_s.value + 6 * nccl.bus_step_s.value
    expected = {
        "copies": 2 * 3 / 4 * 64e-3,
        "nccl": 2 * 3 / 4 * 64e-3 / nccl.switch_share.value + steps_s,
        "tree": 2 * 2 * 64e-3,
        "root": 2 * 3 * 64e-3,
        "host": 2 * 4 * 64e-3,  # four times through a memory of 1 GB/s, each way
    }
    assert set(expected) == set(LIBRARIES)
    for library, seconds in expected.items():
        found = all_reduce_s(replace(machine, collectives=library), 4, 64 * 10**6, peer=True)
        assert found == pytest.approx(seconds), library


def test_nccl_is_slower_over_each_step_of_the_topology() -> None:
    """NVSwitch, a PCI Express switch, the host's bridge, the host's memory, two processors."""
    card = load_machine("a100-pcie")
    switched = changed(card, {"devices_per_uplink": 4})
    large = 256 * 2**20
    seconds = [
        all_reduce_s(load_machine("a100"), 4, large, peer=True),
        all_reduce_s(switched, 4, large, peer=True),
        all_reduce_s(card, 4, large, peer=True),
        all_reduce_s(card, 4, large, peer=False),
        all_reduce_s(card, 8, large, peer=False),
    ]
    assert all(faster < slower for faster, slower in itertools.pairwise(seconds))
    assert seconds[-1] > 10 * seconds[0]
    # A switch that adds takes each buffer once; that of the A100 does not.
    adds = changed(load_machine("hgx-h200"), {"peer_link.bytes_per_s": 3e11})
    assert all_reduce_s(adds, 8, large, peer=True) < 0.75 * all_reduce_s(
        load_machine("dgx-a100"), 8, large, peer=True
    )
    # GeForce cards since Turing read each other's memory over NVLink alone.
    assert not load_machine("rtx3090").peer
    assert load_machine("gtx1080-ti").peer


def test_a_small_sum_is_all_steps_and_a_large_one_all_bytes() -> None:
    machine, nccl = load_machine("hgx-h200"), load_nccl()
    small = all_reduce_s(machine, 4, 8, peer=True)
    flags_s = nccl.launch_s.value + 6 * nccl.peer_link_flag_step_s.value
    assert small == pytest.approx(flags_s, rel=1e-3)
    link, size = load_link("nvlink4"), 2**40
    reached = size / all_reduce_s(machine, 4, size, peer=True)
    assert reached == pytest.approx(
        link.effective_bytes_per_s * nccl.sum_share.value / (1 + 1 / 4), rel=1e-3
    )


def test_a_link_has_a_rate_each_way_and_a_ramp() -> None:
    link = load_link("pcie2-x16-gtx580")
    assert link.seconds(10**9) == pytest.approx(1e9 / 5.502e9, rel=1e-3)
    assert link.seconds(10**9, back=True) == pytest.approx(1e9 / 6.101e9, rel=1e-3)
    two = load_machine("gtx580x2")
    assert from_host(two, 0, 10**9).seconds == pytest.approx(link.seconds(10**9))
    assert to_host(two, 0, 1, 10**9).seconds == pytest.approx(link.seconds(10**9, back=True))
    assert between(two, 0, 1, 10**9).seconds == pytest.approx(link.seconds(10**9))
    assert load_machine("gtx580").link == link
    ramp = load_link("nvlink2-power9")
    start, rate = ramp.latency_s.value, ramp.effective_bytes_per_s
    assert ramp.seconds(1000) == pytest.approx(start + 2000 / rate)
    assert ramp.seconds(10**9) == pytest.approx(start + (1e9 + ramp.ramp_bytes.value) / rate)


ROW = {
    "op": "allreduce", "source": "a source", "device": "NVIDIA H200", "library": "nccl 2.29",
    "notes": "", "extra": '{"bytes":1048576,"ranks":8,"link":"NVSwitch"}',
}  # fmt: skip


def test_rows_of_transfers_are_predicted_or_say_why_not() -> None:
    on_switch = transfer_s(ROW)
    assert on_switch == all_reduce_s(load_machine("hgx-h200"), 8, 1048576, peer=True)
    over_bus = transfer_s(ROW | {"extra": '{"bytes":1048576,"ranks":8}'})
    assert isinstance(over_bus, float)
    assert over_bus > 2 * on_switch
    apart = transfer_s(ROW | {"extra": '{"bytes":1048576,"ranks":8,"ranks_per_node":1}'})
    assert isinstance(apart, float)
    assert apart > 2 * on_switch
    with_process_group = transfer_s(ROW | {"library": "nccl (pytorch)"})
    assert with_process_group > on_switch
    assert isinstance(transfer_s(ROW | {"op": "sendrecv"}), float)
    # Titan X (Pascal) has a switch there, M40 all through the host: 12 and 6 GB/s.
    sheet = ROW | {"library": "NCCL 2.0 Single", "notes": "sheet of 2018-05-23"}
    sheet |= {"extra": '{"bytes":67108864,"ranks":4}'}
    fast, slow = (transfer_s(sheet | {"device": d}) for d in ("Titan X (Pascal)", "Tesla M40"))
    assert slow > 1.8 * fast
    reasons = {
        "no data sheet: Voodoo": {"device": "Voodoo"},
        "no transfer: gemm": {"op": "gemm"},
        "no model of the library: OSU MPI": {"library": "OSU MPI"},
        "ranks not stated: ": {"extra": '{"bytes":4}'},
        "bytes not stated: ": {"extra": "[]"},
        "no such copy: 'up'": {"op": "memcpy", "extra": '{"bytes":4,"what":"up"}'},
    }
    for reason, changes in reasons.items():
        assert str(transfer_s(ROW | changes)).startswith(reason)


def test_copies_go_by_their_direction_and_their_memory() -> None:
    def copied(what: str, device: str = "GTX 580 3GB") -> float:
        extra = json.dumps({"bytes": 1e9, "what": what})
        seconds = transfer_s(
            ROW | {"op": "memcpy", "device": device, "extra": extra, "source": "vetter/shoc"}
        )
        assert isinstance(seconds, float)
        return seconds

    assert copied("host to device, pinned") == pytest.approx(1 / 5.502, rel=1e-3)
    assert copied("device to host, pinned") == pytest.approx(1 / 6.101, rel=1e-3)
    assert copied("host to device, pageable") > 1.5 * copied("host to device, pinned")
    assert copied("device read") == copied("device write") < 0.1 * copied("device to host, pinned")
    assert copied("device to host, pinned", "GTX 680") < copied("host to device, pinned", "GTX 680")


@pytest.fixture(scope="module")
def several() -> dict[str, Case]:
    return {case.row.id: case for case in all_rows("published")[0] if case.row.n_gpus > 1}


def test_who_sums_follows_from_the_framework(several: dict[str, Case]) -> None:
    def ran(row: str) -> tuple[str, bool, bool]:
        setting = setting_of(several[row])
        return setting.machine.collectives, setting.machine.peer, setting.hidden > 0

    assert ran("mx-0084") == ("root", True, False)
    assert ran("tf-0009") == ("host", True, False)  # a parameter server on the CPU
    assert ran("tf-0017") == ("root", True, False)  # on GPUs
    assert ran("lam-0124") == ("nccl", False, True)  # no peer access
    assert ran("lam-0092") == ("nccl", False, False)  # XLA's one piece hides nothing
    assert ran("pap-0003") == ("copies", True, False)
    caffe = replace(several["lam-0124"], family="caffe")
    assert setting_of(caffe).machine.collectives == "tree"


def test_one_process_pays_for_every_tensor_and_card(several: dict[str, Case]) -> None:
    network, machine = load_network("resnet50"), load_machine("titan-xp")
    # torchvision's ResNet-50: 161 parameters, and 53 batch norms of three buffers.
    assert held_tensors(network) == 161 + 3 * 53
    case = replace(several["lam-0124"], network=network)

    def pass_s(cards: int, passes: str, alone_s: float) -> float:
        row = replace(case.row, n_gpus=cards)
        return replicated_s(replace(case, row=row, passes=passes), machine, alone_s)

    # One thread at a time launches: a pass that is long hides it, a short one does not.
    assert pass_s(4, "fwd", 1.0) - pass_s(2, "fwd", 1.0) < 1e-3
    assert pass_s(4, "fwd", 1e-3) > 1.4 * pass_s(2, "fwd", 1e-3)
    assert pass_s(2, "fwd+bwd", 0.1) > 0.1 + math.ulp(1)
    assert pass_s(4, "fwd+bwd", 0.1) > pass_s(2, "fwd+bwd", 0.1)
