"""The counted generator is Random123's Philox4x32-10, and its words are uniform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.dataset.philox import below, philox, uniform

ONES = 2**32 - 1
quick = settings(max_examples=50, deadline=None)
words = st.integers(0, ONES)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123_are_reproduced(
    counter: tuple[int, ...], key: tuple[int, int], expected: str
) -> None:
    drawn = philox(key[1] << 32 | key[0], *counter)
    assert drawn.dtype == np.uint32
    assert " ".join(f"{word:08x}" for word in drawn.ravel()) == expected


@quick
@given(st.integers(0, 2**64 - 1), st.lists(words, min_size=1, max_size=9), words, words, words)
def test_a_draw_depends_on_its_own_counter_only(
    seed: int, many: list[int], c1: int, c2: int, c3: int
) -> None:
    together = philox(seed, np.array(many), c1, c2, c3)
    alone = [philox(seed, np.array([one]), c1, c2, c3) for one in many]
    assert np.array_equal(together, np.concatenate(alone, axis=1))


def test_each_bit_of_seed_and_counter_changes_the_draw() -> None:
    seen = {philox(0, 0, 0, 0, 0).tobytes()}
    seen |= {philox(1 << bit, 0, 0, 0, 0).tobytes() for bit in range(64)}
    for place in range(4):
        for bit in range(32):
            seen.add(philox(0, *(1 << bit if place == at else 0 for at in range(4))).tobytes())
    assert len(seen) == 1 + 64 + 4 * 32


def test_uniform_excludes_0_and_1() -> None:
    ends = uniform(np.array([0, ONES], np.uint32))
    assert 0 < ends[0] < ends[1] < 1


def test_uniform_is_uniform() -> None:
    drawn = uniform(philox(7, np.arange(20_000), 0, 0, 0))
    for column in drawn:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.03


@quick
@given(st.lists(words, min_size=1, max_size=9), st.integers(1, 2**31 - 1))
def test_below_stays_below(drawn: list[int], bound: int) -> None:
    numbers = below(np.array([0, *drawn, ONES], np.uint32), bound)
    assert numbers.dtype == np.int64
    assert numbers[0] == 0
    assert numbers[-1] == bound - 1
    assert ((numbers >= 0) & (numbers < bound)).all()


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 100])
def test_below_is_uniform(bound: int) -> None:
    counts = np.bincount(below(philox(3, np.arange(20_000), 0, 0, 0)[0], bound), minlength=bound)
    assert len(counts) == bound
    assert bound == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_below_takes_a_bound_for_each_word() -> None:
    bounds = np.array([1, 10, 1000, 2**31 - 1])
    assert below(np.full(4, ONES, np.uint32), bounds).tolist() == (bounds - 1).tolist()
