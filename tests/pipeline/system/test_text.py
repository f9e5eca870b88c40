"""Text for people: safe for a terminal, and precise at any scale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.system.text import printable, rate, share, size


def test_control_characters_become_visible() -> None:
    assert printable("\x1b[2J\x1b]0;owned\x07") == r"\x1b[2J\x1b]0;owned\x07"
    assert printable("a\rb\x9b\x00\u202e\udcff") == r"a\rb\x9b\x00\u202e\udcff"
    assert printable("step 1\tloss 2\nÜber 画像 🙂 ╭─╮") == "step 1\tloss 2\nÜber 画像 🙂 ╭─╮"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in printable(text))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0.0 KB"),
        (1_500, "1.5 KB"),
        (999_000, "999.0 KB"),
        (1_000_000, "1.0 MB"),
        (144_000_000_000, "144.0 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_sizes_have_the_unit_that_suits_them(count: float, expected: str) -> None:
    assert size(count) == expected


def test_a_share_has_the_unit_of_the_whole() -> None:
    assert share(0, 2_000) == "0.0 of 2.0 KB"
    assert share(500, 2_000_000_000) == "0.0 of 2.0 GB"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.354, "0.35"), (9.87, "9.87"), (10.4, "10"), (1234.5, "1,234")],
)
def test_speeds_below_ten_have_decimals(value: float, expected: str) -> None:
    assert rate(value) == expected
