"""Which checkpoint a run stands for; the program's tests have the others, and the mistakes."""

from pathlib import Path

import pytest

from pipeline.checkpoint import write_checkpoint
from pipeline.weights import find_one
from tests.support.snapshots import save_all, snapshot


def test_the_best_is_the_one_that_a_run_keeps(tmp_path: Path) -> None:
    errors = [5.0, 3.0, None, 3.0, 4.0]
    snapshots = [snapshot(step, error) for step, error in enumerate(errors, start=1)]
    for one in snapshots:
        write_checkpoint(tmp_path / "all", one)
    save_all(tmp_path / "kept", snapshots, keep_last=1)
    best = find_one(tmp_path / "all", best=True, warn=pytest.fail).name
    assert best == "step-00000002"
    assert best in {path.name for path in (tmp_path / "kept").iterdir()}
