"""Values are found at their offsets, whatever is between them and however often each is used."""

import os
from pathlib import Path

import numpy as np
import pytest

from data.formats.parquet_values import ValueFinder


def stored(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


@pytest.fixture
def chunk(tmp_path: Path) -> Path:
    return tmp_path / "chunk"


@pytest.fixture(params=range(8))
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def find(path: Path, values: list[bytes], *, start: int = 0) -> list[int | None]:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size - start
        finder = ValueFinder(stream.fileno(), start=start, size=size)
        return [finder.find(value) for value in values]


def expect_found(path: Path, values: list[bytes], *, start: int = 0) -> None:
    content = path.read_bytes()
    for value, place in zip(values, find(path, values, start=start), strict=True):
        assert place is not None
        assert content[place : place + len(value)] == value
        assert content[place - 4 : place] == len(value).to_bytes(4, "little")


def some_values(random: np.random.Generator, count: int) -> list[bytes]:
    """Values with a common prefix, as images have, from 0 bytes to more than one read."""
    sizes = random.choice([0, 1, 3, 70, 500, 70_000, 140_000], count)
    return [b"\xff\xd8\xff"[: min(size, 3)] + random.bytes(max(0, size - 3)) for size in sizes]


def test_values_in_order_with_gaps_are_found(chunk: Path, random: np.random.Generator) -> None:
    values = some_values(random, 12)
    gaps = random.choice([0, 0, 0, 1, 40, 65_530, 65_536, 200_000], len(values))
    parts = [random.bytes(gap) + stored(v) for gap, v in zip(gaps, values, strict=True)]
    chunk.write_bytes(random.bytes(77) + b"".join(parts))
    expect_found(chunk, values, start=77)


def test_values_in_any_order_and_more_than_once_are_found(
    chunk: Path, random: np.random.Generator
) -> None:
    values = some_values(random, 8)
    chunk.write_bytes(b"".join(stored(value) for value in values))
    asked = [values[number] for number in random.integers(0, len(values), 30)]
    expect_found(chunk, asked)


def test_a_value_far_after_others_is_found(chunk: Path) -> None:
    chunk.write_bytes(stored(b"near") + bytes(3_000_000) + stored(b"far away"))
    assert find(chunk, [b"near", b"far away"]) == [4, 3_000_012]


def test_the_beginning_of_a_value_is_not_the_value(chunk: Path) -> None:
    value = bytes(range(100))
    chunk.write_bytes(stored(value)[:-1] + b"!" + stored(value)[:90] + stored(value))
    assert find(chunk, [value]) == [104 + 90 + 4]


@pytest.mark.parametrize("content", [b"", b"\1\0\0", stored(b"abc")[:-1], b"\4\0\0\0abc", b"abc"])
def test_a_missing_value_is_not_found(chunk: Path, content: bytes) -> None:
    chunk.write_bytes(content)
    assert find(chunk, [b"abc"]) == [None]


def test_a_value_outside_the_chunk_is_not_found(chunk: Path) -> None:
    chunk.write_bytes(stored(b"abc") * 3)
    with chunk.open("rb") as stream:
        inside = ValueFinder(stream.fileno(), start=8, size=6)
        assert inside.find(b"abc") is None
        beyond = ValueFinder(stream.fileno(), start=21, size=1_000_000)
        assert beyond.find(b"abc") is None
