"""Shipping to real MLflow stores: everything arrives, and nothing arrives twice."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from launch import dashboard
from pipeline.tracking.events import Evaluated, Event, RunEnded, RunStarted, StepReport
from pipeline.tracking.jsonl import METRICS, Jsonl
from pipeline.tracking.server import chart_link, experiment_ids, server_command
from pipeline.tracking.server import free_port as next_free_port
from pipeline.tracking.sidecar import Sidecar, unshipped_runs
from pipeline.tracking.spool import Shipped, unshipped_bytes

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
EXPERIMENT = "experiment"
PARAMS: dict[str, str | int | float | bool] = {
    "data.dir": "datasets/cifar10",
    "optim.lr": 0.1,
    "tracking.uri": "http://me:secret@tracking",
}
SHIPPED_PARAMS = {
    "data.dir": "datasets/cifar10",
    "optim.lr": "0.1",
    "tracking.uri": "http://me:***@tracking",
}
TAGS = {"git_commit": "abc", "dataset_fingerprint": "f" * 64, "config_hash": "123"}


def started(
    first_step: int = 1,
    params: dict[str, str | int | float | bool] = PARAMS,
    world_size: int = 1,
) -> RunStarted:
    return RunStarted("r50", "runs/r50", first_step, 20, 2.0, world_size, params, TAGS)


def progress(step: int) -> StepReport:
    return StepReport(step, step / 10, 1 / step, 0.1, 100.0, 0.5)


def evaluated(step: int) -> Evaluated:
    return Evaluated(step, step / 10, 100 / step, 10 / step, 1.0, 50_000, 3.0)


def write(run_dir: Path, events: Sequence[Event]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    with Jsonl(run_dir / METRICS) as jsonl:
        for event in events:
            jsonl.on_event(event)


def ship(store: Path, *run_dirs: Path, give_up_seconds: float = 60) -> int:
    """Ship runs by hand; return the exit code."""
    command = [sys.executable, "-m", "pipeline.tracking.ship", *map(str, run_dirs)]
    command += ["--uri", f"sqlite:///{store}", "--experiment", EXPERIMENT]
    command += ["--give-up-seconds", str(give_up_seconds)]
    return subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode


def ask(store: Path, query: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(store, timeout=20)) as database:
        return database.execute(query, values).fetchall()


def run_id(run_dir: Path) -> str:
    state = Shipped.load(run_dir)
    assert state is not None
    return state.run_id


def steps(store: Path, run_dir: Path, key: str = "train/loss") -> list[int]:
    """The steps of all points of a curve, with repetitions."""
    query = "select step from metrics where run_uuid = ? and key = ? order by step"
    return [step for (step,) in ask(store, query, run_id(run_dir), key)]


def tags(store: Path, run_dir: Path) -> dict[str, str]:
    return dict(ask(store, "select key, value from tags where run_uuid = ?", run_id(run_dir)))


def params(store: Path, run_dir: Path) -> dict[str, str]:
    return dict(ask(store, "select key, value from params where run_uuid = ?", run_id(run_dir)))


def parents(store: Path, group: str) -> list[str]:
    """The parent runs of a group."""
    query = "select run_uuid from tags where key = 'run_key' and value = ?"
    return [run_id for (run_id,) in ask(store, query, group)]


def status(store: Path, run_dir: Path) -> str:
    query = "select status from runs where run_uuid = ?"
    return ask(store, query, run_id(run_dir))[0][0]


def until(condition: Any, timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store created by two concurrent runs, and several runs shipped later."""
    place = tmp_path_factory.mktemp("place")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    for name in ("first", "second"):
        write(place / "runs" / name, [started()])
    with (
        Sidecar.start(place / "runs/first", uri=uri, experiment=EXPERIMENT) as first,
        Sidecar.start(place / "runs/second", uri=uri, experiment=EXPERIMENT) as second,
    ):
        assert first.await_run_id(90) is not None
        assert second.await_run_id(90) is not None
        for name, sidecar in (("first", first), ("second", second)):
            write(place / "runs" / name, [*map(progress, range(1, 21)), evaluated(20)])
            (place / "runs" / name / "result.json").write_text("{}")
            write(place / "runs" / name, [RunEnded("finished", "", {"top1_error_percent": 5.0})])
            assert sidecar.drain(60)
    build_runs(place / "runs")
    folders = [place / "runs" / name for name in ("resumed", "refused", "torn", "crashed")]
    assert ship(place / "mlflow.db", *folders) == 0
    return place


def build_runs(runs: Path) -> None:
    write(runs / "resumed", [started(), *map(progress, range(1, 11)), evaluated(5), evaluated(10)])
    write(runs / "resumed", [RunEnded("interrupted")])
    again = started(6, PARAMS | {"optim.lr": 0.2, "new": 1}, world_size=4)
    write(runs / "resumed", [again, *map(progress, range(6, 21)), evaluated(10), evaluated(20)])
    write(runs / "resumed", [RunEnded("finished")])

    write(runs / "refused", [started(params=PARAMS | {"a//b": 1, "c(d": 2}), progress(1)])
    with (runs / "refused" / METRICS).open("a") as file:
        for step in (2**70, "x", None):
            file.write(json.dumps({"event": "progress", "time": 1.0, "step": step}) + "\n")
        file.write('{"event": "of a later release", "time": 1.0}\n')
        file.write('{"event": 7, "time": "x"}\n')
    write(runs / "refused", [progress(2), RunEnded("finished")])

    write(runs / "torn", [started(), progress(1)])
    with (runs / "torn" / METRICS).open("a") as file:
        file.write('{"event": "progress", "time": 17')
    nan = StepReport(2, 0.2, float("nan"), 0.1, 100.0, 0.5)
    write(runs / "torn", [started(), nan, progress(3), RunEnded("failed", "loss is NaN")])

    write(runs / "crashed", [started(), progress(1)])


def test_concurrent_runs_share_one_new_store_and_experiment(place: Path) -> None:
    store = place / "mlflow.db"
    query = "select count(*), count(distinct experiment_id) from runs where name in (?, ?)"
    assert ask(store, query, "first", "second") == [(2, 1)]
    for name in ("first", "second"):
        folder = place / "runs" / name
        for key in ("train/loss", "train/lr", "train/images_per_second", "epoch"):
            assert steps(store, folder, key) == list(range(1, 21))
        assert steps(store, folder, "val/top1_error") == [20]
        assert status(store, folder) == "FINISHED"


def test_concurrent_runs_of_a_group_share_one_parent(tmp_path: Path) -> None:
    store, folders = tmp_path / "mlflow.db", [tmp_path / "sweep" / f"seed={n}" for n in range(3)]
    grouped = started(params=PARAMS | {"tracking.group": "tiny-sweep-1a2b3c"})
    with ExitStack() as stack:
        for folder in folders:
            write(folder, [grouped, progress(1)])
            uri = f"sqlite:///{store}"
            stack.enter_context(Sidecar.start(folder, uri=uri, experiment=EXPERIMENT))
        until(lambda: all((kept := Shipped.load(each)) and kept.offset for each in folders), 90)
    (parent,) = parents(store, "tiny-sweep-1a2b3c")
    assert {tags(store, folder)["mlflow.parentRunId"] for folder in folders} == {parent}
    query = "select name, status from runs where run_uuid = ?"
    assert ask(store, query, parent) == [("tiny-sweep-1a2b3c", "FINISHED")]
    (folders[0] / "mlflow.json").unlink()
    assert ship(store, folders[0]) == 0  # ships everything again
    assert ask(store, "select count(*) from runs") == [(4,)]
    assert parents(store, "tiny-sweep-1a2b3c") == [parent]


MEETING = """
import sys, threading, time
from pathlib import Path
from pipeline.tracking.mlflow_client import TrackingClient
database = Path(sys.argv[1])
members = [TrackingClient(f"sqlite:///{database}") for _ in range(8)]
experiment = members[0].experiment("experiment")
start = threading.Barrier(len(members))
def join(member):
    start.wait()
    while True:
        try:
            return member.group(experiment, "meeting", 1, database.with_name("meeting.lock"))
        except ConnectionError:
            time.sleep(0.01)
threads = [threading.Thread(target=join, args=[member]) for member in members]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_a_group_joined_by_many_at_once_has_one_parent(tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    subprocess.run([sys.executable, "-c", MEETING, store], cwd=ROOT, check=True, timeout=120)
    assert len(parents(store, "meeting")) == 1


def test_a_run_has_its_settings_tags_and_dataset(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/first"
    assert params(store, folder) == SHIPPED_PARAMS
    found = tags(store, folder)
    assert found["mlflow.source.git.commit"] == "abc"
    assert found["mlflow.runName"] == "first"
    assert found["config_hash"] == "123"
    assert "top1 error percent" in found["mlflow.note.content"]
    assert ask(store, "select name, digest from datasets") == [("cifar10", "f" * 36)]
    kept = list((place / "mlartifacts").rglob("result.json"))
    assert {path.parents[1].name for path in kept} == {
        run_id(place / "runs" / name) for name in ("first", "second")
    }


def test_times_are_those_of_the_events(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/first"
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    written = [int(line["time"] * 1000) for line in lines if line["event"] == "progress"]
    query = "select timestamp from metrics where run_uuid = ? and key = 'epoch' order by step"
    assert [row[0] for row in ask(store, query, run_id(folder))] == written
    query = "select start_time, end_time from runs where run_uuid = ?"
    ends = (int(lines[0]["time"] * 1000), int(lines[-1]["time"] * 1000))
    assert ask(store, query, run_id(folder)) == [ends]


def test_a_resumed_run_is_one_run_without_repeated_steps(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/resumed"
    assert steps(store, folder) == list(range(1, 21))
    assert steps(store, folder, "val/top1_error") == [5, 10, 20]
    assert status(store, folder) == "FINISHED"
    assert params(store, folder)["optim.lr"] == "0.1"
    assert params(store, folder)["new"] == "1"
    assert tags(store, folder)["resumed.optim.lr"] == "0.2"
    assert tags(store, folder)["world_size"] == "4"


def test_items_that_mlflow_refuses_are_quarantined_and_block_nothing(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/refused"
    assert steps(store, folder) == [1, 2]
    assert params(store, folder) == SHIPPED_PARAMS
    assert status(store, folder) == "FINISHED"
    quarantine = (folder / "mlflow_quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 6
    assert sum("a//b" in line for line in quarantine) == 1
    assert sum("c(d" in line for line in quarantine) == 1


def test_an_incomplete_line_harms_no_other(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/torn"
    assert steps(store, folder) == [1, 2, 3]
    query = "select is_nan from metrics where run_uuid = ? and key = 'train/loss' and step = 2"
    assert ask(store, query, run_id(folder)) == [(1,)]
    assert status(store, folder) == "FAILED"
    assert tags(store, folder)["end_message"] == "loss is NaN"


def test_a_run_without_an_end_event_was_killed(place: Path) -> None:
    assert status(place / "mlflow.db", place / "runs/crashed") == "KILLED"
    assert steps(place / "mlflow.db", place / "runs/crashed") == [1]


def test_shipping_again_from_the_start_changes_nothing(place: Path) -> None:
    store = place / "mlflow.db"
    count = "select (select count(*) from runs), (select count(*) from metrics)"
    before = ask(store, count)
    old = run_id(place / "runs/resumed")
    for name in ("first", "resumed"):
        (place / "runs" / name / "mlflow.json").unlink()
    assert ship(store, place / "runs/first", place / "runs/resumed") == 0
    assert ask(store, count) == before
    assert run_id(place / "runs/resumed") == old


def test_a_killed_sidecar_loses_and_repeats_nothing(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/midway"
    write(folder, [started(), *map(progress, range(1, 1001)), evaluated(1000)])
    uri, size = f"sqlite:///{store}", unshipped_bytes(folder, 0)
    with Sidecar.start(folder, uri=uri, experiment=EXPERIMENT) as sidecar:
        until(lambda: (state := Shipped.load(folder)) and state.offset > 0)
        assert sidecar.pid is not None
        os.kill(sidecar.pid, signal.SIGKILL)
        until(lambda: sidecar.pid is None)
        state = Shipped.load(folder)
        assert state is not None
        assert state.offset < size
        assert sidecar.drain(60)  # restarts it
    assert steps(store, folder) == list(range(1, 1001))
    assert steps(store, folder, "val/loss") == [1000]


TRAINER = """
import os, sys
from pathlib import Path
from pipeline.tracking.server import chart_link, experiment_ids, server_command
from pipeline.tracking.server import free_port as next_free_port
from pipeline.tracking.sidecar import Sidecar
with Sidecar.start(Path(sys.argv[1]), uri=sys.argv[2], experiment="experiment") as sidecar:
    assert sidecar.await_run_id(60)
    os.kill(sidecar.pid, 15)
    print(sidecar.pid, flush=True)
    sys.stdin.read()
"""


def test_the_sidecar_survives_a_signal_to_the_job_but_not_its_trainer(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/trainer-dies"
    write(folder, [started(), progress(1)])
    command = [sys.executable, "-c", TRAINER, str(folder), f"sqlite:///{store}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        pid = int(trainer.stdout.readline())
        write(folder, [progress(2)])
        until(lambda: steps(store, folder) == [1, 2])  # after SIGTERM
        assert status(store, folder) == "RUNNING"
        trainer.kill()
    until(lambda: status(store, folder) == "KILLED")
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)


def test_an_earlier_run_with_passwords_is_shipped_without_them(place: Path) -> None:
    store, folder = place / "mlflow.db", place / "runs/with-passwords"
    folder.mkdir()
    secrets = {"tracking.uri": "http://me:s3cr3t@tracking", "env.WANDB_API_KEY": "s3cr3t"}
    start: dict[str, Any] = asdict(started()) | {"event": "run_started", "time": 1.0}
    lines = [
        start | {"params": PARAMS | secrets, "tags": TAGS | {"command": "http://a:s3cr3t@b"}},
        {"event": "warned", "time": 2.0, "message": "no http://me:s3cr3t@tracking"},
        {"event": "progress", "time": 3.0, "step": 1, "note": "http://me:s3cr3t@tracking"},
        {"event": "run_ended", "time": 4.0, "status": "failed", "message": "http://a:s3cr3t@b"},
    ]
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(
        "tracking:\n  uri: http://me:s3cr3t@tracking\nenv:\n  WANDB_API_KEY: s3cr3t\n"
    )
    assert ship(store, folder) == 0
    found = params(store, folder)
    assert found["tracking.uri"] == "http://me:***@tracking"
    assert found["env.WANDB_API_KEY"] == "***"
    assert "s3cr3t" not in str(tags(store, folder))
    assert "s3cr3t" not in (folder / "mlflow_quarantine.jsonl").read_text()
    (artifact,) = (place / "mlartifacts").glob(f"*/{run_id(folder)}/artifacts/config.yaml")
    assert artifact.read_text() == (
        "tracking:\n  uri: http://me:***@tracking\nenv:\n  WANDB_API_KEY: ***\n"
    )


@contextmanager
def serving(place: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """The dashboard, started as by a user."""
    command = [sys.executable, "launch/dashboard.py", "--no-browser", "--port", str(port)]
    command += ["--runs-dir", str(place / "runs"), "--uri", f"sqlite:///{place / 'mlflow.db'}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.terminate()
            server.communicate(timeout=30)


def test_an_outage_of_the_server_loses_and_repeats_nothing(place: Path) -> None:
    store, folder, port = place / "mlflow.db", place / "runs/outage", free_port()
    grouped = started(params=PARAMS | {"tracking.group": "outage-sweep"})
    write(folder, [grouped, *map(progress, range(1, 101))])
    uri = f"http://127.0.0.1:{port}"
    with Sidecar.start(folder, uri=uri, experiment=EXPERIMENT, give_up_seconds=0) as sidecar:
        assert sidecar.await_run_id(1) is None
        assert not sidecar.drain(0.5)
        with serving(place, port) as server:
            assert server.stdout is not None
            link = next(line for line in server.stdout if line.startswith("Dashboard: "))
            assert link.endswith("runs?workflowType=machine_learning&compareRunsMode=CHART\n")
            assert link.startswith(f"Dashboard: {uri}/#/experiments/1/")
            assert experiment_ids(uri) == ["1"]
            assert sidecar.await_run_id(90)
            assert sidecar.drain(60)
        assert server.returncode == 0
        with socket.socket() as probe:  # no server process remains
            assert probe.connect_ex(("127.0.0.1", port)) != 0
        assert steps(store, folder) == list(range(1, 101))
        write(folder, [*map(progress, range(101, 201)), RunEnded("finished")])
        assert not sidecar.drain(1)
        pid = sidecar.pid
    until(lambda: not Path(f"/proc/{pid}").exists())  # gives up; the rest stays in the file
    assert steps(store, folder) == list(range(1, 101))
    assert ship(store, folder) == 0
    assert steps(store, folder) == list(range(1, 201))
    assert status(store, folder) == "FINISHED"
    assert tags(store, folder)["mlflow.parentRunId"] in parents(store, "outage-sweep")


# ------------------------------------------------------------------------------- the dashboard


def test_without_a_store_the_dashboard_reports_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert dashboard.main(["--runs-dir", str(tmp_path / "runs"), "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert f"no MLflow store at {tmp_path}/mlflow.db" in said
    assert "--runs-dir" in said


def test_a_remote_server_is_only_linked_to(capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    assert dashboard.main(["--uri", f"{uri}/", "--no-browser"]) == 0
    assert capsys.readouterr().out == f"Dashboard: {uri}/#/experiments\n"


def test_a_run_that_never_reached_its_store_is_sent_later(tmp_path: Path) -> None:
    folder, uri = tmp_path / "runs" / "unreached", f"http://127.0.0.1:{free_port()}"
    write(folder, [started(), progress(1)])
    with Sidecar.start(folder, uri=uri, experiment=EXPERIMENT, give_up_seconds=0) as sidecar:
        assert sidecar.await_run_id(1) is None
        until(lambda: Shipped.load(folder))
    assert unshipped_runs(folder.parent, uri) == [folder]


def test_the_dashboard_of_a_checkout_that_is_not_installed_sends_the_rest(tmp_path: Path) -> None:
    code, runs, uri = tmp_path / "code", tmp_path / "runs", f"http://127.0.0.1:{free_port()}"
    for package in ("pipeline", "launch"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, code / package, ignore=ignored)
    (code / "pipeline" / "tracking" / "ship.py").write_text(
        "import os, sys\nprint(__file__, sys.argv[1:], os.environ['MLFLOW_TRACKING_URI'])\n"
    )
    write(runs / "behind", [started()])
    Shipped(uri, EXPERIMENT, "key").save(runs / "behind")
    done = subprocess.run(
        [sys.executable, code / "launch" / "dashboard.py", "--no-browser", "--runs-dir", runs],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": "", "MLFLOW_TRACKING_URI": uri},
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"Sending the rest of 1 run; see {runs}/mlflow.log\n" in done.stdout
    until(lambda: "\n" in (runs / "mlflow.log").read_text())
    ours = code / "pipeline" / "tracking" / "ship.py"
    assert (runs / "mlflow.log").read_text() == f"{ours} ['{runs}/behind'] {uri}\n"


@pytest.mark.parametrize(
    "program", [["-m", "pipeline.tracking.ship", "."], [ROOT / "launch" / "dashboard.py"]]
)
def test_addresses_that_cannot_be_used_are_refused(program: list[Any], tmp_path: Path) -> None:
    for uri, said in {
        "ftp://host/x": "--uri ftp://host/x starts with ftp:, and MLflow has no such store",
        "file:./mlruns": "--uri file:./mlruns is a folder",
        "http://me:s3cr3t@host": "--uri http://me:***@host has a password",
    }.items():
        done = subprocess.run(
            [sys.executable, *program, "--uri", uri],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert said in done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_used_port_is_replaced_by_the_next_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert next_free_port("127.0.0.1", port) > port


def test_one_experiment_is_opened_and_several_are_listed() -> None:
    one = "http://h/#/experiments/3/runs?workflowType=machine_learning&compareRunsMode=CHART"
    assert chart_link("http://h", ["3"]) == one
    assert chart_link("http://h", ["3", "4"]) == "http://h/#/experiments"
    assert chart_link("http://h", []) == "http://h/#/experiments"


def test_hosts_are_listed_only_if_others_can_connect(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    alone = server_command(uri, tmp_path / "runs", "127.0.0.1", 5000)
    assert "--allowed-hosts" not in alone
    shared = server_command(uri, tmp_path / "runs", "0.0.0.0", 5000)
    hosts = shared[shared.index("--allowed-hosts") + 1].split(",")
    assert {socket.gethostname(), f"{socket.gethostname()}:*", "localhost:*", "10.*"} <= set(hosts)
    assert "*" not in hosts
    origins = shared[shared.index("--cors-allowed-origins") + 1].split(",")
    assert f"http://{socket.gethostname()}:5000" in origins
