"""The events of a run are summed up as its last process reported them."""

from pathlib import Path

from pipeline.runs.summary import read_metrics
from pipeline.tracking import events
from pipeline.tracking.jsonl import METRICS
from tests.support.run_folders import progress, run_started, write_events


def test_a_new_process_replaces_the_end_of_the_last_one(tmp_path: Path) -> None:
    write_events(tmp_path, run_started(tmp_path), progress(10), events.RunEnded("failed", "why"))
    assert read_metrics(tmp_path).ended["message"] == "why"
    write_events(tmp_path, run_started(tmp_path), progress(12))
    metrics = read_metrics(tmp_path)
    assert (metrics.starts, metrics.ended, metrics.progress["step"]) == (2, {}, 12)


def test_torn_lines_are_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, progress(10))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"event": "progress", "time": 1.0, "ste')
    assert read_metrics(tmp_path).progress["step"] == 10
