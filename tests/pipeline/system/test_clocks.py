"""A wrong clock is reported; the majority decides which one is wrong."""

from pipeline.system.clocks import wrong_clocks


def test_clocks_within_two_seconds_are_fine() -> None:
    assert wrong_clocks({"n1": 0.0, "n2": 1.9, "n3": -1.9}) == []
    assert wrong_clocks({"n1": 0.0}) == []
    assert wrong_clocks({}) == []


def test_the_clock_that_differs_from_most_is_named() -> None:
    (late,) = wrong_clocks({"n1": 0.0, "n2": -600.0, "n3": 0.1})
    assert "the clock of n2 is 600.0 s behind the other nodes" in late
    (first,) = wrong_clocks({"n1": 0.0, "n2": -600.0, "n3": -600.0})
    assert "the clock of n1 is 600.0 s ahead of the other nodes" in first


def test_of_two_clocks_the_second_is_compared_with_the_first() -> None:
    (sentence,) = wrong_clocks({"n1": 0.0, "n2": 3.0})
    assert "the clock of n2 is 3.0 s ahead of that of n1" in sentence
