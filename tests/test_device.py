import re
from pathlib import Path

import pytest

from alexsim.errors import ProfileError
from alexsim.machine.device import Device, device_names, load_device
from alexsim.machine.link import link_names, load_link
from alexsim.machine.machine import (
    changed,
    load_machine,
    load_sheet,
    machine_names,
)
from alexsim.machine.sheet import KINDS, UNSOURCED, find, names, read_sheet
from alexsim.report.hardware import quantities

NUMBER = {"value": 1, "kind": "spec", "source": "s"}
SHEET = {
    "name": "x",
    "year": 2010,
    "architecture": "fermi",
    "compute_capability": "2.0",
    **dict.fromkeys(
        (
            "memory_bytes", "context_bytes", "multiprocessors", "clock_hz", "memory_bytes_per_s",
            "l2_bytes", "shared_bytes_per_sm", "registers_per_sm", "threads_per_sm", "power_w",
        ),
        NUMBER,
    ),
    "sources": {"s": "somewhere"},
}  # fmt: skip


def test_the_card_of_2012() -> None:
    card = load_device("gtx580")
    assert card.memory_bytes.value == 3_220_897_792
    assert card.flop_per_s == 2 * 512 * 1.544e9
    assert (card.multiprocessors.value, card.memory_bytes_per_s.value) == (16, 192.4e9)


@pytest.mark.parametrize("name", [*device_names(), *machine_names(), *link_names()])
def test_every_sheet_loads_and_says_where_its_numbers_come_from(name: str) -> None:
    sheet = load_sheet(name)
    found = list(quantities(sheet))
    if isinstance(sheet, Device):
        found += quantities(sheet.architecture)
    assert len(found) >= 3
    for key, quantity in found:
        assert quantity.kind in KINDS
        assert len(quantity.source) > 10, key


def test_peaks_are_those_of_the_data_sheets() -> None:
    # TFLOP/s as the makers state them.
    stated = {
        "gtx680": 3.25, "k20": 3.52, "k40": 4.29, "k40-875": 5.04, "titan-x-maxwell": 6.61,
        "p100": 10.6, "v100": 15.7, "rtx2080-ti": 13.45, "a100": 19.5, "rtx3090": 35.6,
        "h100": 66.9,
    }  # fmt: skip
    for name, tera in stated.items():
        assert load_device(name).flop_per_s / 1e12 == pytest.approx(tera, rel=0.005), name
    # Dense FP16 tensor throughput with float32 accumulation.
    for name, tera in {"v100": 125, "a100": 312, "h100": 1070, "t4": 65}.items():
        assert load_device(name).tensor_fp16_flop_per_s / 1e12 == pytest.approx(tera, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 1}, r"unknown keys \['memory'\]"),
        ({"memory_bytes": 3}, "memory_bytes must be a table"),
        (
            {"memory_bytes": {"value": 1, "kind": "spec"}},
            r"memory_bytes: missing keys \['source'\]",
        ),
        ({"memory_bytes": NUMBER | {"value": 0}}, "memory_bytes must be positive"),
        ({"memory_bytes": NUMBER | {"value": -1}}, "must be finite and not negative, got -1"),
        ({"memory_bytes": NUMBER | {"value": "1"}}, "must be a number, got '1'"),
        ({"memory_bytes": NUMBER | {"kind": "felt"}}, "got 'felt'"),
        ({"memory_bytes": NUMBER | {"source": "t"}}, "source 't' is not in"),
        ({"architecture": 5}, "architecture must be a text, got 5"),
        ({"year": "2010"}, "year must be a whole number, got '2010'"),
        ({"multiprocessors": NUMBER | {"value": 0.5}}, "multiprocessors must be a whole number"),
        ({"sources": 3}, "must be a table of texts"),
        ({"architecture": "fermy"}, "no architecture 'fermy'; did you mean fermi"),
    ],
)
def test_malformed_sheets_are_named(change: dict, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        read_sheet(Device, SHEET | change, "devices/x.toml")


def test_unknown_names_list_the_near_and_the_known() -> None:
    with pytest.raises(ProfileError, match="did you mean gtx580"):
        load_device("gtx58")
    with pytest.raises(ProfileError, match="did you mean pcie3-x1"):
        load_link("pcie3x1")
    listed = "no machine, device or link 'zzz' (`alexsim hardware list` has all"
    with pytest.raises(ProfileError, match=re.escape(listed)):
        load_sheet("zzz")


def test_every_number_of_every_sheet_has_a_source_or_says_that_it_has_none() -> None:
    for folder in ("devices", "links", "machines", "architectures"):
        for name in names(folder):
            sources = find(folder, name, what="sheet")[0]["sources"]
            used = {q["source"] for q in find(folder, name, what="sheet")[0].values()
                    if isinstance(q, dict) and "source" in q}  # fmt: skip
            assert used == set(sources), name
            for text in sources.values():
                assert text == UNSOURCED or len(text.split()) > 2, (name, text)
                assert text == UNSOURCED or "unsourced" not in text, (name, text)
                assert not re.search(r"\bMEMORY\b|search index", text), (name, text)
    with pytest.raises(ProfileError, match="x is empty"):
        read_sheet(Device, SHEET | {"sources": SHEET["sources"] | {"x": " "}}, "devices/x.toml")


def test_a_bare_device_beyond_a_network_is_a_machine_of_one_card() -> None:
    together, apart = load_machine("k80"), load_machine("k80", "", "10gbe")
    assert together.devices_per_node.value == 16
    assert apart.devices_per_node.value == 1
    assert load_machine("k20x8", "", "10gbe").devices_per_node.value == 8


def test_a_users_own_sheet(tmp_path: Path) -> None:
    text = Path(str(_folder() / "machines" / "gtx580x2.toml")).read_text("utf-8")
    own = tmp_path / "mine.toml"
    own.write_text(text.replace('link = "pcie2-x16"', 'link = "pcie1-x8"'), encoding="utf-8")
    assert load_machine(str(own)).link.bytes_per_s.value == 2e9
    card = tmp_path / "card.toml"
    card.write_text(Path(str(_folder() / "devices" / "gtx580.toml")).read_text("utf-8"), "utf-8")
    assert load_sheet(str(card)).name == "GTX 580 3GB"
    around = load_machine(str(card), "pcie3-x16")
    assert (around.device.name, around.link.name) == ("GTX 580 3GB", "PCI Express 3.0 x16")
    own.write_text("name = ", encoding="utf-8")
    with pytest.raises(ProfileError, match="is not TOML"):
        load_sheet(str(own))
    with pytest.raises(ProfileError, match="cannot read machine"):
        load_machine(str(tmp_path / "none.toml"))


def _folder():
    from importlib.resources import files

    return files("alexsim_profiles")


def test_a_device_becomes_a_machine_of_its_time() -> None:
    assert load_machine("titan-x-maxwell").link.name == "PCI Express 3.0 x16"
    assert load_machine("k20").link.name == "PCI Express 2.0 x16"
    assert load_machine("a100", "nvlink3").link.name.startswith("NVLink 3")


def test_single_numbers_can_be_set() -> None:
    machine = load_machine("gtx580x2")
    other = changed(machine, {"device.clock_mhz": 1700, "link.gb_per_s": 4, "link.latency_us": 50})
    assert other.device.clock_hz.value == 1.7e9
    assert other.link.bytes_per_s.value == 4e9
    assert other.link.latency_s.value == pytest.approx(5e-5)
    assert machine.device.clock_hz.value == 1.544e9
    for key, value, message in (
        ("device.clock", 1, "a device has no 'clock'"),
        ("device.clock_hz", 0, "must be positive"),
        ("link.efficiency", 2, "must be at most 1"),
        ("link.bytes_per_s", 0, "must be positive"),
        ("device.multiprocessors", 0.3, "must be a whole number, got 0.3"),
        ("devices_per_uplink", 0.5, "must be a whole number, got 0.5"),
        ("devices_per_node", float("inf"), "must be finite"),
        ("peer_link.bytes_per_s", 1, "has no peer_link"),
        ("disk_bytes_per_s", -1, "must be finite and not negative"),
        ("disk_bytes_per_s", 0, "must be positive"),
        ("speed", 1, "nothing is named 'speed'"),
    ):
        with pytest.raises(ProfileError, match=message):
            changed(machine, {key: value})
