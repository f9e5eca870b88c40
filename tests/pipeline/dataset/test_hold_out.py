"""Which images are held out depends on their bytes and labels alone."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.dataset.hold_out import held_out
from pipeline.dataset.samples import DIGEST_BYTES

Images = list[tuple[int, int]]
"""The label and the number of each image; images with the same number are copies."""
quick = settings(max_examples=60, deadline=None)
images = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=80)
fractions = st.floats(0.01, 0.99)


def digest(number: int) -> bytes:
    return hashlib.md5(bytes([number])).digest()  # any 16 bytes


def arrays(made: Images) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    joined = b"".join(digest(number) for _, number in made)
    digests = np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_BYTES)
    return np.array([label for label, _ in made], np.int32), digests


def chosen(made: Images, fraction: float, salt: str = "a") -> set[int]:
    """The numbers of the images that are held out; of copies, all or none."""
    out = held_out(*arrays(made), fraction=fraction, salt=salt)
    numbers = {number for (_, number), is_out in zip(made, out, strict=True) if is_out}
    assert [number in numbers for _, number in made] == out.tolist()
    return numbers


def distinct(made: Images) -> dict[int, set[int]]:
    """The different images of each label; copies with several labels belong to the lowest."""
    owner = {number: min(label for label, n in made if n == number) for _, number in made}
    return {label: {n for n in owner if owner[n] == label} for label in owner.values()}


@quick
@given(images, fractions)
def test_each_class_gives_its_share_and_keeps_the_rest(made: Images, fraction: float) -> None:
    out = chosen(made, fraction)
    for numbers in distinct(made).values():
        wanted = int(np.floor(fraction * len(numbers) + 0.5))
        wanted = min(max(wanted, 1), len(numbers) - 1)
        assert len(numbers & out) == wanted


@quick
@given(images, fractions)
def test_those_with_the_smallest_sha256_are_held_out(made: Images, fraction: float) -> None:
    out = chosen(made, fraction, "salt")

    def rank(number: int) -> bytes:
        return hashlib.sha256(b"salt:" + digest(number)).digest()

    for numbers in distinct(made).values():
        ranked = sorted(numbers, key=rank)
        assert set(ranked[: len(numbers & out)]) == numbers & out


@quick
@given(images, fractions, st.randoms())
def test_order_and_number_of_copies_do_not_matter(made: Images, fraction: float, random) -> None:
    mixed = [*made, made[0]]
    random.shuffle(mixed)
    assert chosen(mixed, fraction) == chosen(made, fraction)


@quick
@given(st.integers(2, 60), st.integers(60, 200), fractions)
def test_a_new_image_moves_at_most_one_other(count: int, new: int, fraction: float) -> None:
    made = [(0, number) for number in range(count)]
    before, after = chosen(made, fraction), chosen([*made, (0, new)], fraction)
    assert len(before ^ (after - {new})) <= 1


def test_another_salt_holds_out_others() -> None:
    made = [(number % 2, number) for number in range(100)]
    assert chosen(made, 0.2, "a") != chosen(made, 0.2, "b")
    assert len(chosen(made, 0.2, "b")) == 20


def test_the_choice_never_changes() -> None:
    """Datasets that are prepared again, and runs that are resumed, rely on it."""
    made = [(number % 2, number) for number in range(20)]
    assert sorted(chosen(made, 0.2, "validation")) == [7, 12, 15, 16]


def test_nothing_is_held_out_of_nothing() -> None:
    assert held_out(*arrays([]), fraction=0.5, salt="").shape == (0,)
