"""The event file, the console, and what MLflow should receive: all without MLflow."""

import io
import json
import math
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from pipeline.tracking.console import Console, duration, final_table
from pipeline.tracking.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    RunEnded,
    RunStarted,
    StepReport,
    Warned,
)
from pipeline.tracking.jsonl import METRICS, Jsonl, read_events, read_lines
from pipeline.tracking.sidecar import Sidecar, unshipped_runs
from pipeline.tracking.spool import MetricPoint, Shipped, items, next_events, run_key
from pipeline.tracking.store_uri import default_uri, sqlite_file, without_password
from pipeline.tracking.tracker import Tracker

STARTED = RunStarted("r50", "runs/r50-1", 1, 100, 2.0, 8, {"optim.lr": 0.1}, {"git_commit": "abc"})
RESULT = {
    "top1_error_percent": 23.41,
    "top5_error_percent": 6.93,
    "images_evaluated": 50_000,
    "steps": 450_360,
    "epochs": 90.0,
    "images_per_second": 20_412.3,
    "parameters": 25_557_032,
    "world_size": 8,
    "dataset_fingerprint": "f" * 64,
    "mlflow_run_id": "0123456789abcdef0123456789abcdef",
    "seconds": 5_678.9,
    "run_dir": "runs/resnet50-3f2a9c",
}
EVENTS: list[Event] = [
    STARTED,
    StepReport(50, 1.0, 2.5, 0.1, 1234.5, 0.4),
    Evaluated(50, 1.0, 40.0, 15.0, 1.9, 50_000, 12.0),
    CheckpointSaved(50, "runs/r50-1/checkpoints/50", 0.7),
    Warned("the disk is nearly full"),
    RunEnded("finished", "", RESULT),
]


def progress(step: int, loss: float = 1.0) -> StepReport:
    return StepReport(step, step / 10, loss, 0.1, 100.0, 0.0)


def write(path: Path, events: list[Event]) -> None:
    with Jsonl(path) as jsonl:
        for event in events:
            jsonl.on_event(event)


# ------------------------------------------------------------------------------ the event file


def test_written_events_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / METRICS, EVENTS)
    found = list(read_events(tmp_path / METRICS))
    names = ["run_started", "progress", "evaluated", "checkpoint_saved", "warned", "run_ended"]
    assert [event.pop("event") for event in found] == names
    times = [event.pop("time") for event in found]
    assert times == sorted(times)
    assert found == [asdict(event) for event in EVENTS]


def test_non_finite_numbers_are_valid_json_and_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / METRICS, [progress(1, math.nan)])
    write(tmp_path / METRICS, [progress(2, math.inf), progress(3, -math.inf), Warned("NaN")])

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    for line in (tmp_path / METRICS).read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    nan, inf, minus, warned = read_events(tmp_path / METRICS)
    assert math.isnan(nan["loss"])
    assert (inf["loss"], minus["loss"]) == (math.inf, -math.inf)
    assert warned["message"] == "NaN"


@pytest.mark.parametrize("torn", [b'{"event": "progress", "ti', b'{"a": 1}', b"12", b"\xff\xfe"])
def test_an_incomplete_line_harms_no_other(tmp_path: Path, torn: bytes) -> None:
    write(tmp_path / METRICS, [progress(1)])
    with (tmp_path / METRICS).open("ab") as file:
        file.write(torn)
    assert [event["step"] for event in read_events(tmp_path / METRICS)] == [1]
    write(tmp_path / METRICS, [progress(2)])
    assert [event["step"] for event in read_events(tmp_path / METRICS)] == [1, 2]
    ends = [end for _, end in read_lines(tmp_path / METRICS)]
    assert ends[-1] == (tmp_path / METRICS).stat().st_size


def test_reading_can_start_at_any_line(tmp_path: Path) -> None:
    write(tmp_path / METRICS, [progress(step) for step in range(5)])
    ends = [end for _, end in read_lines(tmp_path / METRICS)]
    rest = [event for event, _ in read_lines(tmp_path / METRICS, ends[1]) if event]
    assert [event["step"] for event in rest] == [2, 3, 4]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pipeline.tracking.events import StepReport
from pipeline.tracking.jsonl import Jsonl
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limit = Path(sys.argv[1]), 1000
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with Jsonl(path) as jsonl:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for step in range(50):
        jsonl.on_event(StepReport(step, 0.0, 1.0, 0.1, 1.0, 0.0))
    assert path.stat().st_size == limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
"""


@pytest.mark.process
def test_a_full_disk_stops_nothing_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning") == 1
    assert str(path) in done.stderr
    assert [event["step"] for event in read_events(path)] == list(range(50))


def test_a_file_that_cannot_be_opened_only_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "absent" / METRICS, [progress(1), progress(2)])
    warnings = capsys.readouterr().err
    assert "No such file" in warnings
    assert "2 events could not be written" in warnings


# --------------------------------------------------------------------------------- the console


def shown(events: list[Event], *, terminal: bool) -> str:
    screen = RichConsole(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)
    with Console(screen) as console:
        for event in events:
            console.on_event(event)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_log_has_a_plain_line_for_each_event() -> None:
    text = shown(EVENTS[:-1], terminal=False)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) == 6  # the start has two
    assert "step 50/100" in text
    assert "epoch 1.00/2" in text
    assert "loss 2.5000" in text
    assert "1,234 img/s" in text
    assert "data wait 0.4 %" in text
    assert "left" in text
    assert "top-1 error 40.00 %" in text


def test_a_terminal_has_a_bar() -> None:
    text = shown(EVENTS, terminal=True)
    assert "━" in text
    assert "50 %" in text
    assert "Top-1 error" in text


def test_the_result_is_complete_and_fits_in_80_columns() -> None:
    screen = RichConsole(file=io.StringIO(), width=80)
    screen.print(final_table(RESULT))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for said in (
        "23.41 %",
        "6.93 %",
        "50,000",
        "20,412",
        "1:34:39",
        "runs/resnet50-3f2a9c",
        "python launch/dashboard.py",
        "0123456789abcdef0123456789abcdef",
    ):
        assert said in text


def test_a_result_without_mlflow_does_not_mention_the_dashboard() -> None:
    screen = RichConsole(file=io.StringIO(), width=80)
    screen.print(final_table(RESULT | {"mlflow_run_id": None}))
    assert isinstance(screen.file, io.StringIO)
    assert "dashboard" not in screen.file.getvalue()


def test_the_end_of_a_run_is_shown() -> None:
    assert "run the same command again" in shown([RunEnded("interrupted")], terminal=False)
    assert "Failed: loss is NaN" in shown([RunEnded("failed", "loss is NaN")], terminal=False)


def test_durations_are_shown_as_hours_minutes_and_seconds() -> None:
    assert duration(3_661.4) == "1:01:01"
    assert duration(0) == "0:00:00"
    assert duration(90_000) == "1d 1:00:00"


BROKEN_PIPE = """
import sys
from pipeline.tracking.console import Console
from pipeline.tracking.events import StepReport
with Console() as console:
    for step in range(20_000):
        console.on_event(StepReport(step, 0.0, 1.0, 0.1, 1.0, 0.0))
sys.stderr.write("trained to the end")
"""


@pytest.mark.process
def test_a_closed_pipe_does_not_end_the_run() -> None:
    command = [sys.executable, "-c", BROKEN_PIPE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        run.stdout.close()
        assert run.stderr is not None
        assert run.stderr.read() == b"trained to the end"
    assert run.returncode == 0


# ----------------------------------------------------------------------- what MLflow receives


def test_starts_and_ends_come_alone_and_no_event_is_skipped(tmp_path: Path) -> None:
    run = [STARTED, *map(progress, range(5)), RunEnded("interrupted")]
    write(tmp_path / METRICS, run + run)
    offset, sizes = 0, list[int]()
    while True:
        found, offset = next_events(tmp_path, offset, most=3)
        if not found:
            break
        sizes.append(len(found))
    assert sizes == [1, 3, 2, 1] * 2
    assert offset == (tmp_path / METRICS).stat().st_size


def test_repeated_steps_are_shipped_once() -> None:
    state, shipped = Shipped("uri", "experiment", "key"), list[int]()
    for step in [1, 2, 3, 2, 3, 4]:
        event = {"event": "progress", "time": 1.0} | asdict(progress(step))
        shipped += [
            p.step for p in items(event, state) if isinstance(p, MetricPoint) and p.key == "epoch"
        ]
        state = state.after(event)
    assert shipped == [1, 2, 3, 4]


def test_the_key_of_a_run_does_not_depend_on_its_state(tmp_path: Path) -> None:
    write(tmp_path / METRICS, [STARTED])
    key = run_key(tmp_path)
    write(tmp_path / METRICS, [progress(1), STARTED])
    assert run_key(tmp_path) == key
    assert key.startswith(f"{tmp_path.name}@")


def test_the_state_is_read_back_or_none_if_damaged(tmp_path: Path) -> None:
    assert Shipped.load(tmp_path) is None
    state = Shipped("uri", "experiment", "key", run_id="r", offset=7)
    state.save(tmp_path)
    assert Shipped.load(tmp_path) == state
    (tmp_path / "mlflow.json").write_text("{")
    assert Shipped.load(tmp_path) is None


def test_the_formats_on_disk_are_those_of_earlier_runs(tmp_path: Path) -> None:
    (tmp_path / "mlflow.json").write_text(
        '{"uri": "u", "experiment": "e", "run_key": "k", "experiment_id": "1", "run_id": "r",'
        ' "offset": 7, "train_step": 50, "val_step": 40, "last_time": 1.5, "ended": false,'
        ' "abandoned": true}\n'
    )
    state = Shipped("u", "e", "k", "1", "r", 7, 50, 40, 1.5, ended=False, abandoned=True)
    assert Shipped.load(tmp_path) == state
    (tmp_path / METRICS).write_text(
        '{"event": "progress", "time": 1.5, "step": 50, "epoch": 1.0, "loss": "NaN", "lr": 0.1,'
        ' "images_per_second": 9.0, "data_wait_percent": 0.4, "images_replaced": 0}\n'
    )
    (event,) = read_events(tmp_path / METRICS)
    assert (event["event"], event["step"]) == (StepReport.kind, 50)
    assert math.isnan(event["loss"])


def test_runs_that_are_not_fully_shipped_are_found(tmp_path: Path) -> None:
    for name, offset in (("behind", 0), ("level", None), ("elsewhere", 0)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / METRICS, [STARTED])
        size = (folder / METRICS).stat().st_size if offset is None else offset
        store = "http://b" if name == "elsewhere" else "http://a"
        Shipped(store, "experiment", "key", offset=size).save(folder)
    assert unshipped_runs(tmp_path, "http://a") == [tmp_path / "behind"]


def test_the_store_comes_from_the_configuration_the_environment_or_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(Path("runs")) == f"sqlite:///{tmp_path}/mlflow.db"
    assert default_uri(Path("runs"), "sqlite:///own.db") == f"sqlite:///{tmp_path}/own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert default_uri(Path("runs")) == "http://tracking:5000"
    assert default_uri(Path("runs"), "http://other:5000") == "http://other:5000"
    assert sqlite_file("http://tracking:5000") is None


def test_passwords_are_hidden() -> None:
    assert without_password("postgresql://me:secret@db:5432/m") == "postgresql://me:***@db:5432/m"
    assert without_password("http://db:5000/x@y") == "http://db:5000/x@y"


@pytest.mark.process
def test_the_trainer_does_not_import_mlflow() -> None:
    code = "import sys, pipeline.tracking.tracker; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unsent_events_are_reported_with_the_command_that_sends_them(tmp_path: Path) -> None:
    uri = "http://localhost:9"
    with (
        Jsonl(tmp_path / METRICS) as file,
        Sidecar.start(tmp_path / "absent", uri=uri, experiment="e") as sidecar,
    ):
        Tracker([file], sidecar=sidecar, store=uri, run_dir=tmp_path).drain(0.1)
    (warning,) = (event["message"] for event in read_events(tmp_path / METRICS))
    assert warning == (
        f"MLflow at {uri} does not have all events yet; metrics.jsonl has them. The rest is sent in"
        " the background for up to 10 minutes, and later by `python -m pipeline.tracking.ship"
        f" {tmp_path}` or launch/dashboard.py"
    )


def test_events_are_recorded_without_passwords(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    params: dict[str, str | int | float | bool] = {"optim.lr": 0.1, "a": "http://me:s3cr3t@host"}
    start = RunStarted("r50", "runs/r50-1", 1, 100, 2.0, 8, params, {"b": "WANDB_KEY=s3cr3t"})
    write(path, [start, Warned("http://me:s3cr3t@host does not answer")])
    first, second = read_events(path)
    assert first["params"] == {"optim.lr": 0.1, "a": "http://me:***@host"}
    assert first["tags"] == {"b": "WANDB_KEY=***"}
    assert second["message"] == "http://me:***@host does not answer"


def test_a_sidecar_that_cannot_start_raises_nothing(tmp_path: Path) -> None:
    with Sidecar.start(tmp_path / "absent", uri="http://localhost:9", experiment="e") as sidecar:
        sidecar.on_event(STARTED)
        assert sidecar.pid is None
        assert sidecar.await_run_id(0.1) is None
