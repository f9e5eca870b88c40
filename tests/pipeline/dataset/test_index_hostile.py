"""A damaged or forged index is refused with a remedy, or stays within its bounds."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.index import MANIFEST, SPLIT_SCHEMA, Index, Manifest, read_manifest
from tests.support.archives import make_archives

SAMPLES, FILES = "train.arrow", "train.files.arrow"
TABLES = (SAMPLES, FILES)
IMAGES = 13
QUICK = settings(max_examples=150, deadline=None)


class Whole:
    """A dataset whose files are restored before each attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: (folder / name).read_bytes() for name in (MANIFEST, *TABLES)}

    def opened(self, files: Mapping[str, bytes], *, vouched: bool) -> Index | None:
        """Open the split with other files, whose checksums are in the manifest if `vouched`.

        Returns None if it is refused.
        """
        for name, content in {**self.files, **files}.items():
            (self.folder / name).unlink()  # an open index must keep its old content
            (self.folder / name).write_bytes(content)
        if vouched:
            vouch(self.folder)
        index = refusal = None
        try:
            index = Index.open(self.folder, "train")
        except ValueError as error:
            refusal = str(error)
        if refusal:
            assert str(self.folder) in refusal
            assert re.search("prepare it again|has no split", refusal)
        if index:
            assert_in_bounds(index)
        return index

    def tables(self) -> dict[str, Any]:
        return {name: pa.ipc.open_file(self.files[name]).read_all() for name in TABLES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(make_archives(tmp_path_factory.mktemp("dataset"), images=IMAGES, shards=3))


def vouch(folder: Path) -> None:
    """Write the checksums of the tables into the manifest."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name in TABLES:
        manifest["checksums"][name] = xxhash.xxh3_128_hexdigest((folder / name).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest))


def assert_in_bounds(index: Index) -> None:
    count = len(index)
    assert count == index.manifest.samples["train"]
    assert index.digests.shape == (count, 16)
    assert sorted(index.stored.tolist()) == list(range(count))
    for sample in range(count):
        assert isinstance(index.path(sample), Path)
        assert 0 <= index.labels[sample] < len(index.manifest.classes)
        assert index.widths[sample] > 0
        assert index.heights[sample] > 0
        end = int(index.offsets[sample]) + int(index.sizes[sample])
        size = int(index.file_sizes[index.file_ids[sample]])
        assert 0 <= index.offsets[sample] <= end <= size


Change = Callable[[bytes], bytes]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Replace, insert or delete one to three byte strings, flip bits, or truncate."""
    numbers = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1])
    words = numbers.map(lambda number: number.to_bytes(8, "little"))
    new = draw(st.lists(st.one_of(st.binary(max_size=8), words), min_size=1, max_size=3))
    places = [draw(st.floats(0, 1)) for _ in new]
    kind = draw(st.sampled_from(["replace", "insert", "delete", "truncate", "flip"]))

    def change(content: bytes) -> bytes:
        for part, place in zip(new, places, strict=True):
            at = int(place * len(content))
            rest = content[at:]
            match kind:
                case "replace":
                    content = content[:at] + part + rest[len(part) :]
                case "insert":
                    content = content[:at] + part + rest
                case "delete":
                    content = content[:at] + rest[len(part) :]
                case "truncate":
                    content = content[:at]
                case _:
                    bit = 1 << len(part) % 8
                    content = content[:at] + bytes(byte ^ bit for byte in rest[:1]) + rest[1:]
        return content

    return change


def written(*batches: Any, **options: Any) -> bytes:
    """Return an Arrow file of these record batches."""
    sink = pa.BufferOutputStream()
    given = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_file(sink, batches[0].schema, options=given) as writer:
        for batch in batches:
            writer.write(batch)
    return sink.getvalue().to_pybytes()


def with_column(table: Any, name: str, values: Any) -> Any:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), values)


# ------------------------------------------------------------------------------------------- bytes


@pytest.mark.slow
@QUICK
@given(name=st.sampled_from(TABLES), change=changes())
def test_changed_tables_are_refused(whole: Whole, name: str, change: Change) -> None:
    changed = change(whole.files[name])
    index = whole.opened({name: changed}, vouched=False)
    assert (index is None) == (changed != whole.files[name])


@pytest.mark.slow
@settings(QUICK, max_examples=500)
@given(name=st.sampled_from(TABLES), change=changes())
def test_changed_tables_with_matching_checksums_stay_in_bounds(
    whole: Whole, name: str, change: Change
) -> None:
    whole.opened({name: change(whole.files[name])}, vouched=True)


@pytest.mark.slow
@QUICK
@given(change=changes())
def test_a_changed_manifest_stays_in_bounds(whole: Whole, change: Change) -> None:
    whole.opened({MANIFEST: change(whole.files[MANIFEST])}, vouched=False)


# ------------------------------------------------------------------------------------------ values


COLUMNS = [*SPLIT_SCHEMA.names[:-2], "stored"]
"""The numeric columns."""
NUMBERS = st.one_of(
    st.integers(-2, IMAGES + 1),
    st.sampled_from([-(2**63), -(2**31), 2**31 - 1, 2**32, 2**62, 2**63 - 1]),
)


@pytest.mark.slow
@settings(QUICK, max_examples=300)
@given(
    edits=st.lists(
        st.tuples(st.sampled_from(COLUMNS), st.integers(0, IMAGES - 1), NUMBERS), max_size=4
    ),
    sizes=st.lists(NUMBERS, min_size=3, max_size=3) | st.none(),
)
def test_changed_numbers_stay_in_bounds(
    whole: Whole, edits: Sequence[tuple[str, int, int]], sizes: Sequence[int] | None
) -> None:
    tables = whole.tables()
    for name, row, value in edits:
        kind = tables[SAMPLES].schema.field(name).type
        values = tables[SAMPLES].column(name).to_numpy().copy()
        values[row] = np.array(value, np.int64).astype(values.dtype)
        tables[SAMPLES] = with_column(tables[SAMPLES], name, pa.array(values, kind))
    if sizes:
        tables[FILES] = with_column(tables[FILES], "size", pa.array(sizes, pa.int64()))
    whole.opened({name: written(table) for name, table in tables.items()}, vouched=True)


OTHER_TABLES: dict[str, Callable[[Mapping[str, Any]], Mapping[str, bytes]]] = {
    "a row is missing": lambda tables: {SAMPLES: written(tables[SAMPLES].slice(1))},
    "no rows": lambda tables: {SAMPLES: written(tables[SAMPLES].slice(0, 0))},
    "no files": lambda tables: {FILES: written(tables[FILES].slice(0, 0))},
    "a file is missing": lambda tables: {FILES: written(tables[FILES].slice(0, 2))},
    "two batches": lambda tables: {SAMPLES: written(tables[SAMPLES][:4], tables[SAMPLES][4:])},
    "two batches of files": lambda tables: {FILES: written(tables[FILES][:1], tables[FILES][1:])},
    "a column is missing": lambda tables: {SAMPLES: written(tables[SAMPLES].drop(["stored"]))},
    "columns in another order": lambda tables: {
        SAMPLES: written(tables[SAMPLES].select(SPLIT_SCHEMA.names[::-1]))
    },
    "samples in place of files": lambda tables: {FILES: written(tables[SAMPLES])},
    "a column of another type": lambda tables: {
        SAMPLES: written(
            tables[SAMPLES].set_column(3, "label", tables[SAMPLES]["label"].cast(pa.int64()))
        )
    },
    "dictionary-encoded names": lambda tables: {
        FILES: written(
            tables[FILES].set_column(0, "name", tables[FILES].column("name").dictionary_encode())
        )
    },
    "null names": lambda tables: {
        FILES: written(with_column(tables[FILES], "name", pa.nulls(3, pa.large_string())))
    },
    "null labels": lambda tables: {
        SAMPLES: written(with_column(tables[SAMPLES], "label", pa.nulls(IMAGES, pa.int32())))
    },
    "a stream": lambda tables: {SAMPLES: stream(tables[SAMPLES])},
}


def stream(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("other", OTHER_TABLES)
def test_other_tables_are_refused(whole: Whole, other: str) -> None:
    assert whole.opened(OTHER_TABLES[other](whole.tables()), vouched=True) is None


def test_compressed_tables_are_read_unless_they_lie_about_their_size(whole: Whole) -> None:
    tables = whole.tables()
    size = IMAGES * 4
    for codec in ("lz4", "zstd"):
        content = written(tables[SAMPLES], compression=codec)
        assert whole.opened({SAMPLES: content}, vouched=True)
        for lie in (0, 1, 2**31, 2**40, 2**62, 2**63 - 1):
            said = content.replace(size.to_bytes(8, "little"), lie.to_bytes(8, "little"))
            assert said != content
            assert whole.opened({SAMPLES: said}, vouched=True) is None


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**63, 10**400, -1]),
        st.floats(),
        st.text(max_size=3),
        st.sampled_from(["\udcff", "\0", "..", "/", "train", "train.arrow"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
PLACES: list[tuple[str, ...]] = [
    *((field.name,) for field in fields(Manifest)),
    ("samples", "train"),
    ("samples", "other"),
    ("checksums", SAMPLES),
]


@pytest.mark.slow
@settings(QUICK, max_examples=300)
@given(edits=st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=2))
def test_any_value_in_the_manifest_stays_in_bounds(
    whole: Whole, edits: Sequence[tuple[tuple[str, ...], object]]
) -> None:
    manifest: Any = json.loads(whole.files[MANIFEST])
    for (*outer, last), value in edits:
        part = manifest
        for key in outer:
            part = part[key] if isinstance(part.get(key), dict) else part
        part[last] = value
    whole.opened({MANIFEST: json.dumps(manifest).encode()}, vouched=False)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b"{" * 9, b'{"format": 2}', b"9" * 9999],
)
def test_a_file_that_is_not_a_manifest_is_refused(whole: Whole, text: bytes) -> None:
    assert whole.opened({MANIFEST: text}, vouched=False) is None


def test_missing_files_are_reported_with_a_remedy(tmp_path: Path) -> None:
    for missing in TABLES:
        folder = make_archives(tmp_path / missing, images=IMAGES, shards=1)
        (folder / missing).unlink()
        with pytest.raises(ValueError, match=r"cannot be read as an index .*; prepare it again"):
            Index.open(folder, "train")
    with pytest.raises(ValueError, match=r"make one: \S*python data/prepare\.py"):
        read_manifest(tmp_path)
