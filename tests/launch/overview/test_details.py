"""One run in detail, as it is shown on a terminal."""

import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launch.overview import tables
from launch.overview.details import RunDetails, read_details
from launch.overview.tables import details_text, runs_table
from launch.slurm.follow import GrowingLog, print_new
from pipeline.config.schema import Launch
from pipeline.runs.folder import RESULT
from pipeline.tracking import events
from tests.support.run_folders import config, hold_once, run_started, write_events

HOSTILE = "\x1b[2J\x1b]0;owned\x07 [bold]x[/bold] :smile:"
VISIBLE = r"\x1b[2J\x1b]0;owned\x07 [bold]x[/bold] :smile:"
REACHED: dict[str, Any] = {
    "top1_error_percent": 23.74,
    "top5_error_percent": 6.93,
    "images_per_second": 7.512,
    "seconds": 3661.0,
    "dataset_fingerprint": "0123456789abcdef0123",
    "mlflow_run_id": "fefacc5a2b524da6",
    "gpu_hours": 2.5,
}


def run_in(folder: Path, **changes: Any) -> Path:
    return hold_once(config(folder, **changes))


def shown(run: Path, width: int = 200) -> str:
    """Return what status prints of a run on a terminal of this width, without colours."""
    return rendered(details_text(details(run)), width)


def details(run: Path) -> RunDetails:
    return read_details(run, None, None)


def rendered(what: Any, width: int = 200) -> str:
    screen = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    screen.print(what, crop=False)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_finished_run_has_its_error_time_speed_dataset_and_mlflow_run(tmp_path: Path) -> None:
    run = run_in(tmp_path, launch=Launch(price_per_gpu_hour=3.0))
    (run / RESULT).write_text(json.dumps(REACHED))
    text = " ".join(shown(run).replace("│", " ").split())
    for part in (
        "Top-1 error 23.74 %",
        "Top-5 error 6.93 %",
        "Time 1:01:01",
        "Images per second 7.51",
        "Dataset somewhere, fingerprint 0123456789ab",
        "MLflow run fefacc5a2b524da6",
        "GPU-hours 2.50",
        "Cost 7.50",
    ):
        assert part in text
    assert details(run).figures.cost == 7.5


@pytest.mark.parametrize("damaged", ["{}", "", "[]"])
def test_a_result_without_figures_is_shown_without_them(tmp_path: Path, damaged: str) -> None:
    run = run_in(tmp_path)
    (run / RESULT).write_text(damaged)
    text = shown(run)
    assert "finished" in text
    assert "MLflow run" not in text
    assert "Cost" not in text


def test_control_characters_of_logs_and_errors_are_shown_not_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_in(tmp_path)
    log = run / "logs" / "latest" / "rank-0.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"log {HOSTILE}\n")
    failure = events.RunEnded("failed", f"why {HOSTILE}")
    write_events(run, run_started(run), events.Warned(f"warned {HOSTILE}"), failure)
    text = shown(run) + rendered(runs_table([details(run).run]))
    for what in ("log", "warned", "why"):
        assert f"{what} {VISIBLE}" in text
    with log.open() as file:
        print_new([GrowingLog(log, file, log.stat().st_ino)])
    assert capsys.readouterr().out == f"log {VISIBLE}\n"
    assert not {"\x1b", "\x07"} & set(text)


def test_commands_are_whole_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(tmp_path / "a folder with spaces" / "and a rather long name")
    monkeypatch.chdir(tmp_path)
    last = shown(run, width=40).rstrip().splitlines()[-1]
    _, program, place = shlex.split(last)
    assert Path(program).is_file()
    assert Path(place) == run.resolve()


def test_the_console_of_status_obeys_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    tables.console().print("[rank 1] :smile:")
    assert capsys.readouterr().out == "[rank 1] :smile:\n"
