"""MATLAB 5 files are read as MATLAB wrote them: scipy's loadmat is the reference."""

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from data.formats.matlab import read_struct_array, read_text, read_whole_number

MATLAB_FILES = Path(str(files("scipy.io.matlab"))) / "tests/data"
CHARACTERS = st.characters(codec="utf-16", max_codepoint=0xFFFF, exclude_characters="\0")


@given(
    values=st.lists(
        st.tuples(st.integers(0, 2**63 - 1), st.text(CHARACTERS, min_size=1)), min_size=1
    ),
    compressed=st.booleans(),
)
def test_numbers_and_texts_are_kept(values: list[tuple[int, str]], compressed: bool) -> None:
    table = np.empty((len(values), 1), [("number", object), ("text", object)])
    for place, (number, text) in enumerate(values):
        table[place, 0] = np.array(number, np.min_scalar_type(number)), text
    content = io.BytesIO()
    savemat(content, {"before": 1.5, "table": table}, do_compression=compressed)
    found = read_struct_array(content.getvalue(), "table")
    assert found.fields == ("number", "text")
    numbers = map(read_whole_number, found.column("number"))
    texts = map(read_text, found.column("text"))
    assert [*zip(numbers, texts, strict=True)] == values


@pytest.mark.skipif(not MATLAB_FILES.is_dir(), reason="scipy was installed without its tests")
@pytest.mark.parametrize("version", ["6.5.1", "7.1", "7.4"])
def test_what_matlab_itself_wrote_is_read(version: str) -> None:
    path = MATLAB_FILES / f"teststructarr_{version}_GLNX86.mat"
    theirs: Any = loadmat(path, squeeze_me=True)["teststructarr"]
    found = read_struct_array(path.read_bytes(), "teststructarr")
    assert found.fields == theirs.dtype.names == ("one", "two")
    numbers, texts = found.rows
    assert [read_whole_number(number) for number in numbers] == list(theirs[0])
    assert [read_text(text) for text in texts] == list(theirs[1])
