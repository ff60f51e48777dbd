import pytest

from alexsim.errors import AlexsimError
from alexsim.units import GIB, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("3GB", 3 * GIB),
        ("3GiB", 3 * GIB),
        ("1.5g", 3 * GIB // 2),
        ("800 MB", 800 * 2**20),
        ("7B", 7),
    ],
)
def test_sizes_mean_what_a_card_s_box_means(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0", "3XB", "GB", "-3GB", "", "3 G B", "0.1", "7", "1 "])
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(AlexsimError, match="size") as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)


def test_sizes_print_in_binary_units() -> None:
    assert format_bytes(3 * GIB) == "3.00 GiB"
    assert format_bytes(60_030_976) == "57.25 MiB"
    assert format_bytes(512) == "512 B"
