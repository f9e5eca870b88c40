"""Runs are found among other folders."""

from pathlib import Path

from pipeline.runs.find import find_runs
from tests.support.run_folders import config, hold_once


def test_checkpoints_and_other_folders_are_not_runs(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    (tmp_path / "other").mkdir()
    average = tmp_path / "average"
    average.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        (average / name).touch()
    assert find_runs([tmp_path]) == [run_dir]
    assert find_runs([run_dir]) == [run_dir]
