"""A forged checkpoint cannot run code, read outside its folder, or fill the memory."""

import json
import os
import pickle
import struct
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.checkpoint import (
    MANIFEST,
    PROGRESS,
    CheckpointError,
    read_checkpoint,
    write_checkpoint,
)
from tests.support.snapshots import PROGRESS_AT_1, newest_step, snapshot


def forge(path: Path, files: dict[str, bytes], manifest: Any = None) -> None:
    """Write a checkpoint as an attacker might, with hashes that match."""
    path.mkdir(parents=True, exist_ok=True)
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    for name, content in files.items():
        (path / name).write_bytes(content)
    (path / MANIFEST).write_text(json.dumps(manifest or {"sha256": digests}))


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != MANIFEST}


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._target,)


def refused(path: Path) -> None:
    """Reading `path` raises a `CheckpointError` of one line."""
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_valid_forgery_is_read(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, snapshot(1))
    forge(path, files_of(path))
    assert newest_step(tmp_path) == 1


@pytest.mark.parametrize(
    "name", ["../secret", "/{}/secret", "sub/secret", "./secret", "..", ".", "", "a\0b", "x" * 999]
)
def test_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    for secret in (tmp_path / "secret", tmp_path / "step-00000001" / "sub" / "secret"):
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_bytes(b"secret")
    path = write_checkpoint(tmp_path, snapshot(1))
    (path / "secret").write_bytes(b"secret")
    digests = {file: sha256(content).hexdigest() for file, content in files_of(path).items()}
    name = name.format(str(tmp_path).strip("/"))
    forge(path, {}, {"sha256": {**digests, name: sha256(b"secret").hexdigest()}})
    refused(path)


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "null",
        "1",
        '"sha256"',
        "{}",
        '{"sha256": []}',
        '{"sha256": null}',
        '{"sha256": {"progress.json": 1}}',
        '{"sha256": {"progress.json": {}}}',
        '{"sha256": {"\\ud800": "0"}}',
        '{"sha256": {}, "more": 1}',
        "[" * 100_000,
        "\ufeff{}",
        "\x80\x04",
    ],
    ids=lambda text: text[:20],
)
def test_an_invalid_manifest_is_refused(tmp_path: Path, manifest: str) -> None:
    path = write_checkpoint(tmp_path, snapshot(1))
    (path / MANIFEST).write_text(manifest)
    refused(path)


GOOD: dict[str, Any] = asdict(PROGRESS_AT_1)


@pytest.mark.parametrize(
    "progress",
    [
        [],
        None,
        {},
        {**GOOD, "unknown": 1},
        {name: value for name, value in GOOD.items() if name != "seed"},
        {**GOOD, "step": "1"},
        {**GOOD, "step": 1.5},
        {**GOOD, "step": None},
        {**GOOD, "seconds": "x"},
        {**GOOD, "scaler": []},
        {**GOOD, "scaler": {"scale": "x"}},
        {**GOOD, "top1_error_percent": "0"},
        {**GOOD, "fingerprint": 5},
        {**GOOD, "step": -1},
        {**GOOD, "seconds": float("inf")},
        {**GOOD, "scaler": {"scale": float("nan")}},
        *({**GOOD, "top1_error_percent": number} for number in (float("nan"), -1.0, 101.0)),
    ],
)
def test_invalid_progress_is_refused(tmp_path: Path, progress: Any) -> None:
    path = write_checkpoint(tmp_path, snapshot(1))
    forge(path, {**files_of(path), PROGRESS: json.dumps(progress).encode()})
    refused(path)


def tensors_file(header: Any, content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        struct.pack("<Q", 2**63) + b"{}",
        tensors_file([]),
        tensors_file({"a": {"dtype": "F32", "shape": [2**63, 0], "data_offsets": [0, 0]}}),
        tensors_file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}),
        tensors_file({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 1]}}, b"x"),
        tensors_file({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, b"x"),
    ],
)
def test_invalid_tensor_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = write_checkpoint(tmp_path, snapshot(1))
    forge(path, {**files_of(path), "model.safetensors": content})
    refused(path)


def test_no_code_runs(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    pickled = pickle.dumps(Bomb(target))
    torch.save(Bomb(target), tmp_path / "bomb.pt")
    for content in (pickled, (tmp_path / "bomb.pt").read_bytes()):
        for name in ("model.safetensors", "momentum.safetensors", PROGRESS, MANIFEST):
            path = write_checkpoint(tmp_path, snapshot(1))
            if name == MANIFEST:
                (path / MANIFEST).write_bytes(content)
            else:
                forge(path, {**files_of(path), name: content})
            refused(path)
        path = write_checkpoint(tmp_path, snapshot(1))
        forge(path, {**files_of(path), "model.pt": content})
        with suppress(CheckpointError):
            assert read_checkpoint(path).tensors.keys() == {"model", "momentum"}
    assert not target.exists()
    pickle.loads(pickled)
    assert target.exists()  # the bomb does work


@pytest.mark.parametrize("name", [MANIFEST, PROGRESS])
def test_a_huge_text_is_refused(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(tmp_path, snapshot(1))
    os.truncate(path / name, 2**24 + 1)
    if name != MANIFEST:
        forge(path, files_of(path))
    with pytest.raises(CheckpointError, match=f"{name} is longer than"):
        read_checkpoint(path)
