import pytest

from alexsim.errors import ProfileError
from alexsim.machine.device import device_from, device_names, load_device

SHEET = {
    "name": "x",
    "memory_bytes": {"value": 1, "kind": "spec", "source": "s"},
    "context_bytes": {"value": 1, "kind": "fitted", "source": "s"},
}


def test_the_card_of_2012() -> None:
    assert load_device("gtx580").memory_bytes.value == 3_220_897_792


@pytest.mark.parametrize("name", device_names())
def test_every_sheet_loads_and_says_where_its_numbers_come_from(name: str) -> None:
    device = load_device(name)
    for quantity in (device.memory_bytes, device.context_bytes):
        assert quantity.source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 1}, r"unknown keys \['memory'\]"),
        ({"memory_bytes": 3}, "memory_bytes must be a table"),
        ({"memory_bytes": {"value": 1, "kind": "spec"}}, r"missing keys \['source'\]"),
        ({"memory_bytes": {"value": 0, "kind": "spec", "source": "s"}}, "must be positive, got 0"),
        ({"memory_bytes": {"value": 1, "kind": "felt", "source": "s"}}, "got 'felt'"),
    ],
)
def test_malformed_sheets_are_named(change: dict, message: str) -> None:
    with pytest.raises(ProfileError, match=message) as caught:
        device_from(SHEET | change, where="devices/x.toml")
    assert "devices/x.toml" in str(caught.value)


def test_unknown_devices_list_the_known() -> None:
    with pytest.raises(ProfileError, match="did you mean gtx580"):
        load_device("gtx58")
