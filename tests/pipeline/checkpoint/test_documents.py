"""A checkpoint names the dataset that its network was trained on."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.checkpoint import (
    DATASET_FILE,
    CheckpointError,
    TrainedOn,
    describe_dataset,
    read_checkpoint,
    trained_on,
    write_checkpoint,
)
from tests.support.snapshots import snapshot

DATASET = TrainedOn("tiny", "abc", ("n01", "n02"), ("tench", "gâteau"))


def test_the_dataset_comes_back_from_disk(tmp_path: Path) -> None:
    saved = replace(snapshot(1), documents={DATASET_FILE: describe_dataset(DATASET)})
    assert trained_on(read_checkpoint(write_checkpoint(tmp_path, saved))) == DATASET


def test_an_old_checkpoint_has_no_dataset() -> None:
    assert trained_on(snapshot(1)) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "dataset.json: "),
        ('{"name": "tiny", "fingerprint": "abc"}', "dataset.json.classes: "),
        ('{"name": "a", "fingerprint": "b", "classes": [1]}', "dataset.json.classes.0: "),
        ('{"name": "a", "fingerprint": "b", "classes": [], "more": 1}', "dataset.json.more: "),
    ],
)
def test_a_forged_dataset_is_refused(text: str, place: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{place}"):
        trained_on(replace(snapshot(1), documents={DATASET_FILE: text}))
