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


# TFLOP/s of float32 and GB/s as the makers' data sheets print them, by another road than the sheets
# here (lanes and clocks): at the boost where the maker states the base clock; of CPUs cores x GHz x
# FLOP per clock, and channels x the rate of their memory.
STATED = {
    "c1060": (0.622, 102), "gtx480": (1.345, 177.4), "gtx570": (1.405, 152),
    "gtx460": (0.907, 86.4), "c2050": (1.03, 144), "m2070": (1.03, 150), "m2090": (1.331, 177),
    "gtx550-ti": (0.691, 98.5), "gtx680": (3.09 * 1058 / 1006, 192.2),
    "gtx690": (5.62 / 2 * 1019 / 915, 384.4 / 2), "k20": (3.52, 208), "k40": (4.29, 288),
    "k40-875": (5.04, 288), "k6000": (5.2, 288), "gtx780-ti": (5.04 * 928 / 875, 336),
    "jetson-tk1": (0.326, 14.9), "gt640": (0.691, 28.5), "gtx750-ti": (1.306 * 1085 / 1020, 86.4),
    "gtx970": (3.494 * 1178 / 1050, 224), "gtx980-ti": (5.632 * 1076 / 1000, 336.5),
    "titan-x-maxwell": (6.61, 336.5), "k620": (0.863, 29), "jetson-tx1": (0.512, 25.6),
    "p4": (5.5 * 1114 / 1063, 192), "p40": (11.76, 346), "p100": (10.6, 732), "p620": (1.386, 80),
    "gtx1060-3gb": (3.935, 192), "gv100": (16.6, 870), "v100": (15.7, 900), "titan-v": (14.9, 653),
    "titan-xp": (12.15, 547.7), "gtx1660-ti": (5.4, 288), "rtx2060": (6.5, 336),
    "rtx2070": (7.5, 448), "rtx2080": (10.1, 448), "rtx2080-super": (11.2, 496),
    "rtx2080-ti": (13.45, 616), "rtx6000": (16.3, 672), "a10": (31.2, 600), "a40": (37.4, 696),
    "a100": (19.5, 1555), "rtx3090": (35.6, 936), "l40": (90.5, 864), "l40s": (91.6, 864),
    "rtx4090": (82.6, 1008), "rtx6000-ada": (91.1, 960), "h100": (66.9, 3350), "gh200": (67, 4000),
    "h200": (67, 4800), "mi25": (12.3, 484), "vega-fe": (13.1, 483), "mi100": (23.1, 1228.8),
    "mi210": (22.6, 1638), "mi250": (45.3 / 2, 3277 / 2), "mi300a": (122.6 / 2, 5300),
    "mi300x": (163.4 / 2, 5300), "rx6900-xt": (23.04, 512), "i7-6700k": (0.512, 2 * 17.07),
    "i7-5930k": (0.672, 4 * 17.07), "e5-2650-v3": (0.736, 4 * 17.07),
    "x5650x2": (0.256, 6 * 10.67), "xeon-phi-7250": (68 * 1.4 * 64 / 1000, 450),
    "cortex-a57x4": (4 * 1.743 * 8 / 1000, 25.6),
    "rtx3050": (9.1, 224), "rtx3060": (12.7, 360), "rtx3060-ti": (16.2, 448),
    "rtx3070": (20.3, 448), "rtx3070-ti": (21.7, 608), "rtx3080": (29.8, 760),
    "rtx3080-ti": (34.1, 912), "rtx3090-ti": (40, 1008), "a2": (4.5, 200), "a30": (10.3, 933),
    "a4000": (19.2, 448), "a4500": (23.7, 640), "a5000": (27.8, 768), "a5500": (34.1, 768),
    "rtx4060": (15.1, 272), "rtx4060-ti": (22.1, 288), "rtx4070": (29.15, 504),
    "rtx4070-super": (35.5, 504), "rtx4070-ti": (40.1, 504), "rtx4070-ti-super": (44.1, 672),
    "rtx4080": (48.7, 717), "rtx4080-super": (52.2, 736), "rtx5000-ada": (65.3, 576),
    "rtx5060": (19.2, 448), "rtx5060-ti": (23.7, 448), "rtx5070": (30.9, 672),
    "rtx5070-ti": (43.9, 896), "rtx5080": (56.3, 960), "rtx5090": (104.8, 1792),
    "rtx-pro-5000": (66.9, 1344), "rtx-pro-6000": (126, 1792), "h100-nvl": (60.3, 3938),
    "h200-nvl": (60.3, 4800), "b200": (75, 7700), "gh200-144gb": (67, 4900),
    "mi50": (13.4, 1024), "mi60": (14.7, 1024), "mi250x": (47.9 / 2, 3277 / 2),
    "mi325x": (163.4 / 2, 6000), "epyc-7742": (64 * 2.25 * 32 / 1000, 8 * 25.6),
    "epyc-7763": (64 * 2.45 * 32 / 1000, 8 * 25.6), "epyc-9654": (96 * 2.4 * 32 / 1000, 12 * 38.4),
    "xeon-8280": (28 * 2.7 * 64 / 1000, 6 * 23.47), "xeon-8380": (40 * 2.3 * 64 / 1000, 8 * 25.6),
    "xeon-8480": (56 * 2 * 64 / 1000, 8 * 38.4), "grace": (2 * 7.1 / 2, 500),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_peaks_are_those_of_the_data_sheets(name: str) -> None:
    tera, giga = STATED[name]
    device = load_device(name)
    assert device.flop_per_s / 1e12 == pytest.approx(tera, rel=0.02)
    assert device.memory_bytes_per_s.value / 1e9 == pytest.approx(giga, rel=0.02)


def test_matrix_units_and_half_precision_are_as_fast_as_stated() -> None:
    # Dense FP16 of tensor cores or matrix units, with float32 accumulation.
    stated = {
        "v100": 125, "a100": 312, "h100": 1070, "t4": 65, "a40": 149.7, "l40s": 362,
        "gtx1660-ti": 0, "mi100": 184.6, "mi210": 181, "mi300x": 1307, "mi25": 0, "a30": 165,
        "rtx-pro-6000": 503.8, "b200": 2250 * 1980 / 1860, "mi250x": 383 / 2, "mi60": 0,
    }  # fmt: skip
    for name, tera in stated.items():
        assert load_device(name).tensor_fp16_flop_per_s / 1e12 == pytest.approx(tera, rel=0.02)
    # FP16 outside of them.
    stated = {
        "p100": 21.2, "jetson-tx1": 1.02, "gtx1080": 0.139, "v100": 31.4, "a100": 78, "l40s": 91.6,
        "mi25": 24.6, "m40": 0,
    }  # fmt: skip
    for name, tera in stated.items():
        assert load_device(name).fp16_flop_per_s / 1e12 == pytest.approx(tera, rel=0.02)
    # Float32 of AMD's matrix units; without them, the lanes'.
    for name, tera in {"mi100": 46.1, "mi210": 45.3, "v100": 15.7, "mi25": 12.3}.items():
        assert load_device(name).product_flop_per_s / 1e12 == pytest.approx(tera, rel=0.02)


def test_cards_of_one_compute_capability_have_the_same_multiprocessors() -> None:
    limits: dict[str, set[tuple[float, ...]]] = {}
    for device in map(load_device, device_names()):
        of_it = (device.shared_bytes_per_sm, device.registers_per_sm, device.threads_per_sm)
        lanes = device.architecture.lanes_per_sm
        if device.architecture.platform != "cpu":
            of_capability = limits.setdefault(device.compute_capability, set())
            of_capability.add(tuple(quantity.value for quantity in (*of_it, lanes)))
    assert len(limits) > 15
    assert all(len(values) == 1 for values in limits.values()), limits


def test_every_name_of_a_published_table_has_a_sheet() -> None:
    names = find("measurements", "names", what="table")[0]["device"]
    assert {name["name"] for name in names} <= set(device_names())
    for written, sheet in {
        "GeForce GTX 980": "gtx980", "GTX 980 Ti": "gtx980-ti",
        "GTX 750 Ti (superclocked)": "gtx750-ti", "GeForce GTX TITAN": "titan",
        "GTX Titan Black": "titan-black", "Titan X (Pascal)": "titan-x-pascal",
        "Tesla K20c": "k20", "Tesla K20X": "k20x", "k80": "k80", "M40": "m40", "Tesla M40": "m40",
        "Tesla P4": "p4", "Tesla P40": "p40", "Tesla P100-PCIE-16GB": "p100-pcie",
        "Tesla P100 SXM2 (DGX-1)": "p100", "Tesla P100": "p100-pcie",
        "Tesla V100-PCIE-32GB": "v100-pcie", "Tesla V100": "v100",
        "NVIDIA A100 80GB PCIe": "a100-pcie-80gb", "NVIDIA A100-PCIE-40GB": "a100-pcie",
        "A100 80GB": "a100-80gb", "A100-SXM4-40GB": "a100", "H100 PCIe": "h100-pcie",
        "H100": "h100", "NVIDIA L4": "l4", "NVIDIA L40S": "l40s", "L40": "l40", "M2070-Q": "m2070",
        "TX1": "jetson-tx1", "RTX A6000": "a6000", "RTX 6000 Ada": "rtx6000-ada",
        "Quadro RTX 6000": "rtx6000", "AMD MI300A": "mi300a", "AMD Instinct MI210": "mi210",
        "Intel Core i7-6700K (4 cores)": "i7-6700k", "any (relative)": None,
    }.items():  # fmt: skip
        first = next((n["name"] for n in names if re.match(n["pattern"], written)), None)
        assert first == sheet, written


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
    for folder in ("devices", "links", "machines", "architectures", "collectives"):
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
    own.write_text(text.replace('link = "pcie2-x16-gtx580"', 'link = "pcie1-x8"'), encoding="utf-8")
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
