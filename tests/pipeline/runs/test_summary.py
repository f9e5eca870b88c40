"""The events of a run are summed up as its last process reported them."""

import json
from pathlib import Path

from pipeline.runs.summary import read_metrics, tail
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


def test_lines_that_a_later_process_has_ended_are_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, progress(10))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"event": "progress", "time": 1.0, "ste\n')
    assert read_metrics(tmp_path).progress["step"] == 10


def test_passwords_of_earlier_versions_are_not_shown(tmp_path: Path) -> None:
    said = {"event": "run_ended", "time": 1.0, "message": "no http://me:s3cr3t@host"}
    (tmp_path / METRICS).write_text(json.dumps(said) + "\n")
    assert read_metrics(tmp_path).ended["message"] == "no http://me:***@host"
    assert tail(tmp_path / METRICS, 1) == json.dumps(said).replace("s3cr3t", "***")


def test_gpu_hours_are_those_of_all_attempts_until_their_last_reports(tmp_path: Path) -> None:
    def line(event: str, time: float, **more: float) -> str:
        return json.dumps({"event": event, "time": time, **more}) + "\n"

    attempts = (
        line("run_started", 1_000.0, gpus=8, setup_seconds=20.0),
        line("progress", 1_300.0, step=1),
        line("progress", 1_480.0, step=2),  # killed: 500 s
        '{"event": "progress", "time": 14\n',
        line("run_started", 2_000.0, gpus=4, setup_seconds=10.0),
        line("progress", 2_050.0, step=3),
        line("run_ended", 2_090.0),  # 100 s
        line("run_started", 3_000.0),  # by code that did not report its GPUs
    )
    (tmp_path / METRICS).write_text("".join(attempts))
    assert read_metrics(tmp_path).gpu_hours == (500 * 8 + 100 * 4) / 3600
    (tmp_path / METRICS).write_text(line("run_started", 5.0, gpus=0) + line("progress", 9.0))
    assert read_metrics(tmp_path).gpu_hours is None
