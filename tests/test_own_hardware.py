"""Hardware of one's own: files that say little and inherit the rest, whole sheets as files, and
machines of unlike cards."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, ProfileError
from alexsim.machine.device import device_names, load_architecture, load_device
from alexsim.machine.link import link_names, load_link
from alexsim.machine.machine import Machine, load_machine, load_sheet, machine_names
from alexsim.machine.own import INHERITED
from alexsim.machine.sheet import Quantity, Sheet, names
from alexsim.machine.write import new_text, sheet_text
from alexsim.plan.spec import PlanSpec
from alexsim.report.hardware import quantities
from alexsim.simulate.simulator import on_machine

FIVE = """architecture = "ampere"
memory_gib = 32
tflop_per_s = 15
memory_gb_per_s = 1200
link = "pcie3-x16"
"""


def written(folder: Path, text: str, name: str = "mine") -> str:
    """A file of that name; each in a folder of its own, as machines are read once by their path."""
    path = folder / str(len(list(folder.iterdir()))) / f"{name}.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return str(path)


def figures(sheet: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A sheet without its numbers' sources, its links' and devices' too."""
    table = {}
    for field in fields(sheet):
        value = getattr(sheet, field.name)
        if isinstance(value, Sheet):
            value = figures(value)
        elif isinstance(value, tuple):
            value = [figures(each) for each in value]
        table[field.name] = value.value if isinstance(value, Quantity) else value
    return {key: value for key, value in table.items() if key not in without}


@pytest.mark.parametrize("name", [*device_names(), *machine_names(), "a100x4", "rtx3090"])
def test_a_sheet_written_out_predicts_as_its_name_does(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, sheet_text(name))
    spec = PlanSpec(network=load_network("lenet-5"), gpus=1, batch_size=64)
    machine, other = load_machine(name), load_machine(path)
    assert figures(other, ("device_name",)) == figures(machine, ("device_name",))
    assert figures(load_sheet(path)) == figures(load_sheet(name)) or name in device_names()
    by_name, by_file = on_machine(spec, machine), on_machine(spec, other)
    assert by_file.step_s == by_name.step_s
    assert by_file.step_interval == by_name.step_interval
    # Every number keeps its kind and its source.
    kept, before = dict(quantities(load_sheet(path))), dict(quantities(load_sheet(name)))
    assert kept == before


@pytest.mark.parametrize("name", link_names())
def test_a_link_written_out_is_the_same(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, sheet_text(name))
    assert load_sheet(path) == load_link(name)
    assert load_machine("a100", path).link == load_link(name)


@pytest.mark.parametrize("name", ["", *device_names(), *machine_names(), *link_names(), "a100x4"])
def test_a_new_sheet_loads_as_it_is(name: str, tmp_path: Path) -> None:
    sheet = load_sheet(written(tmp_path, new_text(name)))
    like = load_sheet(name or "a100")
    assert sheet.name == "mine"
    for key, quantity in quantities(like):
        if key != "price_usd":
            assert getattr(sheet, key).value == pytest.approx(quantity.value, rel=1e-9), key
    if isinstance(sheet, Machine):
        assert sheet.link == like.link
    # What is offered as a comment loads too.
    text = re.sub(r"^# (\w+ = )", r"\1", new_text(name), flags=re.MULTILINE)
    offered = load_sheet(written(tmp_path, text))
    assert offered.name == like.name


def test_five_lines_are_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, FIVE)
    machine = load_machine(path)
    card = machine.device
    assert (card.name, card.year, card.memory_bytes.value) == ("mine", 2020, 32 * 1024**3)
    assert card.flop_per_s == pytest.approx(15e12, rel=1e-12)
    assert card.multiprocessors.value == round(15e12 / (2 * 64 * 1.41e9))
    assert card.memory_bytes_per_s.value == 1.2e12
    assert machine.link == load_link("pcie3-x16")
    assert machine.devices_per_node.value == 16
    a100 = load_device("a100")
    for key, quantity in quantities(card):
        if key in ("memory_bytes", "memory_bytes_per_s"):
            assert quantity.source == f"stated in {path}, which names no source"
        elif key not in ("multiprocessors", "clock_hz"):
            assert quantity.value == getattr(a100, key).value
            assert quantity.source == f"{INHERITED}a100: {getattr(a100, key).source}"
    with pytest.raises(SystemExit) as stop:
        main(["simulate", "--machine", path, "--net", "lenet-5", "--gpus", "2"])
    assert stop.value.code in (None, 0)
    assert "lenet-5 on mine" in capsys.readouterr().out
    for line, marked in (("", INHERITED + "a100: "), ("--toml", f"# {INHERITED}a100")):
        with pytest.raises(SystemExit):
            main(["hardware", "show", path, *line.split()])
        assert capsys.readouterr().out.count(marked) >= 5


def test_every_architecture_says_the_rest_of_a_card(tmp_path: Path) -> None:
    for name in names("architectures"):
        card = load_device(written(tmp_path, FIVE.replace("ampere", name)))
        assert card.architecture.name == load_architecture(name).name
        assert card.flop_per_s == pytest.approx(15e12, rel=1e-12)


def test_a_sheet_like_another_says_what_is_different(tmp_path: Path) -> None:
    a100 = load_device("a100")
    card = load_device(written(tmp_path, 'like = "A100"\npower_w = 250\nmultiprocessors = 54'))
    assert (card.power_w.value, card.multiprocessors.value) == (250, 54)
    assert card.clock_hz.value == a100.clock_hz.value
    assert card.flop_per_s == a100.flop_per_s / 2
    halved = load_device(written(tmp_path, 'like = "a100"\ntflop_per_s = 9.74592'))
    assert halved.multiprocessors.value == 54
    source = written(
        tmp_path,
        'like = "a100"\npower_w = { value = 250, kind = "measured", source = "meter" }\n'
        '[sources]\nmeter = "a meter at the wall"',
    )
    assert load_device(source).power_w == Quantity(
        value=250, kind="measured", source="a meter at the wall"
    )
    node = load_machine(written(tmp_path, 'like = "dgx-a100"\ndecode_workers = 9'))
    assert (node.device.name, node.decode_workers.value) == (a100.name, 9)
    assert node.peer_link == load_machine("dgx-a100").peer_link
    assert load_machine(written(tmp_path, 'like = "a100x4"')).devices_per_node.value == 4
    link = load_link(written(tmp_path, 'like = "pcie4-x16"\ngb_per_s = 20'))
    assert (link.bytes_per_s.value, link.efficiency.value) == (20e9, 0.8)
    # A machine of its device's time, around a card of one's own.
    card_path = written(tmp_path, FIVE, "card")
    around = load_machine(written(tmp_path, f'device = "{card_path}"\ndevices_per_node = 3'))
    assert (around.device.name, around.device_name) == ("card", "card")
    assert around.devices_per_node.value == 3
    assert around.link.name == "PCI Express 3.0 x16"
    architecture = written(tmp_path, 'like = "ampere"\nlanes_per_sm = 128', "lanes")
    wide = load_device(written(tmp_path, f'like = "a100"\narchitecture = "{architecture}"'))
    assert wide.flop_per_s == 2 * a100.flop_per_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FIVE.replace("gib", "gb"), "no key 'memory_gb'; did you mean memory_gb_per_s or memory_g"),
        (FIVE + "speed = 9", "no key 'speed'"),
        (FIVE + "memory_bytes = 9", "memory_bytes says the same as memory_gib; leave one out"),
        (FIVE + "clock_mhz = 9", "flop_per_s: clock_hz follows from it; leave one out"),
        (FIVE.replace("15", "0"), "flop_per_s: it must be a positive number"),
        (FIVE.replace("32", "-1"), "memory_bytes must be finite and not negative"),
        (FIVE.replace("32", '"a lot"'), "memory_gib must be a number, got 'a lot'"),
        (FIVE + "multiprocessors = 0.5", "multiprocessors must be a whole number, got 0.5"),
        (FIVE + 'power_w = { value = "x", kind = "spec", source = "s" }\n[sources]\ns = "a b c"',
         "power_w.value must be a number, got 'x'"),
        (FIVE + 'power_w = { value = 1, kind = "spec", source = "s" }', "'s' is not in [sources]"),
        (FIVE.replace("ampere", "amper"), "no architecture 'amper'; did you mean ampere"),
        (FIVE.replace("pcie3-x16", "pcie33-x16"), "no link 'pcie33-x16'; did you mean pcie3-x16"),
        (FIVE.replace("tflop_per_s = 15", ""), "missing keys ['flop_per_s']; without like"),
        ('link = "pcie3-x16"', "missing keys ['architecture', 'memory_bytes', 'memory_bytes_per_s'"
         ", 'flop_per_s']; without like, the name of another card, a card has architecture"),
        ('like = "a1000"', "no device 'a1000'; did you mean a100"),
        ("like = 3", "like must be the name of a sheet that ships, got 3"),
        ('like = "other.toml"', "like must be the name of a sheet that ships, got 'other.toml'"),
        ('like = "pcie4-x16"', "is the sheet of a link, not of a machine or a device"),
        ('like = "dgx-1"\nclock_mhz = 3', "no key 'clock_mhz'"),
        ("devices_per_node = 2", "missing keys ['device']: the name of a card"),
        ('device = "a1000"', "no device 'a1000'"),
        ("device = 3", "device must be a text, got 3"),
    ],
)  # fmt: skip
def test_mistakes_in_a_sheet_of_ones_own_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ProfileError, match=re.escape(message)) as raised:
        load_machine(path)
    assert path in str(raised.value)
    assert "\n" not in str(raised.value)


STRANGE = (
    "5", "true", "nan", '"x"', "[]", '["x"]', "{}", "{ x = {} }", "{ value = 1 }", "1979-05-27",
)  # fmt: skip


@pytest.mark.parametrize("name", ["gtx580", "a100x4", "pcie4-x16", ""])
def test_no_value_of_any_key_is_more_than_a_mistake(name: str, tmp_path: Path) -> None:
    whole = sheet_text(name) if name else FIVE
    keys = re.findall(r"^(\w+) = ", whole.partition("[sources]")[0], flags=re.MULTILINE)
    refused = []
    for key in {*keys, "like", "devices", "device", "flop_per_s", "tflop_per_s", "sources"}:
        for value in STRANGE:
            text = re.sub(rf"^{key} = .*\n", "", whole, flags=re.MULTILINE)
            path = written(tmp_path, f"{key} = {value}\n{text}")
            try:
                load_sheet(path)
            except ProfileError as error:
                refused.append((path, str(error)))
    assert len(refused) > 60
    assert all(path in message and "\n" not in message for path, message in refused), refused


def test_new_never_writes_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    for code in (0, 2):
        with pytest.raises(SystemExit) as stop:
            main(["hardware", "new", "--like", "k80", "-o", str(path)])
        assert (stop.value.code or 0) == code
    assert "is there already, and is not written over" in capsys.readouterr().err
    assert 'like = "k80"' in path.read_text("utf-8")
    for line in (["new", "--like", str(path)], ["show", "k80", "--toml", "--json"]):
        with pytest.raises(SystemExit) as stop:
            main(["hardware", *line])
        assert stop.value.code == AlexsimError.exit_code


PLANS = {
    "replicas": PlanSpec(
        network=load_network("alexnet-owt"), gpus=2, partition="replicas", batch_size=128
    ),
    "replicas, overlap": PlanSpec(
        network=load_network("alexnet-owt"),
        gpus=2,
        partition="replicas",
        batch_size=128,
        schedule="overlap",
    ),
    "columns": PlanSpec(network=load_network("alexnet-2012")),
    "columns, overlap": PlanSpec(
        network=load_network("alexnet-2012"), schedule="overlap", transport="host"
    ),
    "hybrid": PlanSpec(
        network=load_network("alexnet-owt"), gpus=2, partition="hybrid", batch_size=256
    ),
    "replicas of columns": PlanSpec(network=load_network("alexnet-2012"), replicas=2),
    "replicas of columns, overlap": PlanSpec(
        network=load_network("alexnet-2012"), replicas=2, schedule="overlap"
    ),
}


def holding(folder: Path, *cards: str, more: str = "") -> Machine:
    listed = ", ".join(f'"{card}"' for card in cards)
    return load_machine(written(folder, f"devices = [{listed}]\n{more}"))


@pytest.mark.parametrize("plan", PLANS)
def test_cards_that_are_listed_and_alike_are_a_machine_of_them(plan: str, tmp_path: Path) -> None:
    spec = PLANS[plan]
    listed = holding(tmp_path, *["rtx3090"] * spec.all_gpus)
    usual = on_machine(spec, load_machine(f"rtx3090x{spec.all_gpus}"))
    each = on_machine(spec, listed)
    # Of a hybrid plan's devices, usually one stands for all, whose shares of units differ by one.
    near = 0.01 if plan == "hybrid" else 1e-9
    assert each.step_s == pytest.approx(usual.step_s, rel=near)
    assert each.devices_count == usual.devices_count == len(each.devices)
    for name in ("utilisation", "forward_s", "all_reduce_s", "power_w", "price_usd", "done_share",
                 "ideal_forward_images_per_s", "ideal_training_images_per_s"):  # fmt: skip
        assert getattr(each, name) == pytest.approx(getattr(usual, name), rel=near), name
    columns = len(usual.devices)
    for index, device in enumerate(each.devices):
        first = usual.devices[index % columns]
        assert device.busy_s == pytest.approx(first.busy_s, rel=near)
        assert device.memory_bytes == pytest.approx(first.memory_bytes, rel=0.01)


@pytest.mark.parametrize("plan", PLANS)
def test_unlike_cards_each_take_their_time_and_wait_for_the_slowest(
    plan: str, tmp_path: Path
) -> None:
    spec = PLANS[plan]
    half = spec.all_gpus // 2
    slow, fast = (
        on_machine(spec, holding(tmp_path, *[card] * spec.all_gpus), library="cudnn-v8")
        for card in ("rtx3060", "rtx4090")
    )
    orders = [("rtx3060", "rtx4090"), ("rtx4090", "rtx3060")]
    for first, second in orders:
        cards = [card for _ in range(half) for card in (first, second)]
        mixed = on_machine(spec, holding(tmp_path, *cards), library="cudnn-v8")
        assert fast.step_s < mixed.step_s <= slow.step_s * (1 + 1e-9)
        if spec.partition == "replicas":
            assert mixed.step_s == pytest.approx(slow.step_s, rel=1e-9)
        for index, device in enumerate(mixed.devices):
            alike = (slow if cards[index] == "rtx3060" else fast).devices[index]
            # A hybrid plan's ops that are alike on all devices are planned whole in all of these.
            assert device.busy_s == pytest.approx(alike.busy_s, rel=1e-9)
            assert device.card == load_device(cards[index]).name
            assert device.capacity_bytes == load_device(cards[index]).memory_bytes.value
        waits = {device.card: device.idle_s for device in mixed.devices}
        assert waits["RTX 4090"] > waits[load_device("rtx3060").name]
    both = [load_device(card) for card in ("rtx3060", "rtx4090")]
    assert mixed.power_w == half * sum(card.power_w.value for card in both)
    assert mixed.price_usd is None  # the 4090's is not stated
    peak = sum(card.flop_per_s for card in both) * half
    flop = sum(op.flop for op in mixed.ops)
    assert mixed.utilisation == pytest.approx(flop / mixed.step_s / peak)


def test_what_unlike_cards_cannot_do_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpus = written(tmp_path, 'devices = ["rtx3090", "rtx4090"]')
    makers = written(tmp_path, 'devices = ["rtx3090", "mi100"]')
    other = written(tmp_path, 'devices = ["rtx3090", "epyc-7763"]')
    net = "--net lenet-5 --gpus 2 --machine"
    for line, message in (
        (f"simulate {net} {makers}", "no library runs on RTX 3090 and Instinct MI100 alike but"),
        (f"simulate {net} {makers} --library cudnn-v8", "cudnn-v8 does not run on Instinct MI100"),
        (f"simulate {net} {other} --library im2col-gemm", "im2col-gemm is another on EPYC 7763"),
        (f"simulate {net} {gpus} --set device.clock_mhz=900", "holds unlike cards"),
        (f"simulate {net} {gpus} --gpus 4 --partition replicas", "has 2 device(s) and no network"),
        (f"recommend --net lenet-5 --days 9 --machine {gpus}", "holds unlike cards"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(line.split())
        error = capsys.readouterr().err
        assert (stop.value.code, message in error) == (2, True), (line, error)
    with pytest.raises(SystemExit) as stop:
        main(f"simulate {net} {makers} --library roofline --sensitivity".split())
    assert not stop.value.code
    for text, message in (
        ('devices = ["rtx3090", 3]', "devices must be a list of texts"),
        ('devices = "rtx3090"', "devices must be a list of texts"),
        ('devices = ["rtx3090", "rtx4091"]', "no device 'rtx4091'; did you mean rtx4090"),
        ('devices = ["a100", "a1000"]', "devices: no device 'a1000'; did you mean a100"),
        ("devices = []", "devices must be a list of texts, got []"),
        ('devices = ["rtx3090"]\ndevice = "a100"', "device is the first of devices; leave it out"),
        ('devices = ["rtx3090"]\ndevices_per_node = 2', "devices lists 1, and devices_per_node"),
    ):
        path = written(tmp_path, text)
        with pytest.raises(ProfileError, match=re.escape(message)) as raised:
            load_machine(path)
        assert path in str(raised.value)


def test_memory_is_judged_card_by_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, 'devices = ["rtx4090", "rtx3080", "rtx4090"]')

    def asked(line: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*line.split(), "--machine", path])
        assert (stop.value.code or 0) == code
        out, error = capsys.readouterr()
        errors.append(error)
        return out

    errors: list[str] = []
    net = "memory --net resnet50 --policy pytorch --gpus 3 --batch 600"
    found = json.loads(asked(f"{net} --json", 3))
    small, large = found["cards"]
    assert (small["card"], small["gpus"]) == ("RTX 3080 10GB", ["gpu1"])
    assert (large["card"], large["gpus"]) == ("RTX 4090", ["gpu0", "gpu2"])
    assert (found["fits"], small["fits"], large["fits"]) == (False, False, True)
    assert found["budget_bytes"] == small["budget_bytes"] == 10 * 1024**3
    assert large["largest_batch_size"] > 600 > small["largest_batch_size"]
    assert large["free_bytes"] - small["free_bytes"] == 14 * 1024**3
    lines, error = asked(net, 3), errors.pop()
    assert error.startswith("alexsim: gpu1 on RTX 3080 10GB needs 18.94 GiB")
    assert "gpu1 on RTX 3080 10GB: 18.94 GiB of 10.00 GiB, context included: does not fit" in lines
    assert "gpu0, gpu2 on RTX 4090: 18.94 GiB of 24.00 GiB, context included: fits" in lines
    # Columns: each against its own card.
    found = json.loads(asked("memory --net alexnet-2012 --batch 1280 --json", 3))
    assert [(card["gpus"], card["fits"]) for card in found["cards"]] == [
        (["gpu1"], False), (["gpu0"], True),
    ]  # fmt: skip
    assert "DOES NOT FIT: gpu1 (RTX 3080 10GB) has 10.00 GiB" in asked("simulate --batch 1280", 3)
    shown = asked_of(path, capsys)
    assert "Unlike cards: gpu0 RTX 4090, gpu1 RTX 3080 10GB, gpu2 RTX 4090" in shown
    assert shown.count("device: ") == 2
    whole = load_machine(written(tmp_path, sheet_text(path)))
    assert figures(whole, ("name",)) == figures(load_machine(path), ("name",))


def asked_of(path: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main(["hardware", "show", path])
    return capsys.readouterr().out


def test_the_files_of_the_page_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text("utf-8")
    first, *others = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(first, "utf-8")
    assert load_sheet("mine.toml").name == "mine"
    assert len(others) == 4
    for text in others:
        load_machine(written(tmp_path, text))
    assert page.startswith(
        "# Hardware of your own\n\n`alexsim hardware list` has"
        f" {len(device_names())} devices, {len(link_names())} links and {len(machine_names())} m"
    )
