"""Machines, folders, containers and tracking stores are judged by what a run needs of them."""

import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.diagnosis.facts import inspect_folder, inspect_machine, inspect_store
from launch.diagnosis.finding import Severity, apply
from launch.diagnosis.machine_rules import RULES as MACHINE_RULES
from launch.diagnosis.machine_rules import Machine
from launch.diagnosis.place_rules import RULES as PLACE_RULES
from launch.diagnosis.place_rules import Folder, TrackingStore, container, tracking

WORK, TIME, FINE = Severity
MACHINE = Machine(8, 8, 64 << 30, 1 << 20, resource.RLIM_INFINITY)
FOLDER = Folder(
    setting="runs_dir",
    path=Path("/home/me/runs"),
    where="nfs4, mounted at /home",
    is_shared=True,
    must_be="shared",
    is_written=True,
    free_bytes=10**12,
)


@pytest.mark.parametrize(
    ("change", "setting", "expected"),
    [
        ({"torch_gpus": 7}, "GPUs", TIME),
        ({"torch_gpus": 0}, "GPUs", WORK),
        ({"gpus": 0, "torch_gpus": 0}, "GPUs", FINE),
        ({"shared_memory_bytes": 64 << 20}, "/dev/shm", WORK),
        ({"shared_memory_bytes": None}, "/dev/shm", WORK),
        ({"open_files": 1024}, "ulimit -Hn", TIME),
        ({"locked_memory_bytes": 8 << 20}, "ulimit -l", FINE),
    ],
)
def test_a_machine_is_judged_by_what_it_has(
    change: dict[str, Any], setting: str, expected: Severity
) -> None:
    assert {each.severity for each in apply(MACHINE_RULES, MACHINE)} == {FINE}
    found = apply(MACHINE_RULES, replace(MACHINE, **change))
    assert {each.setting: each.severity for each in found}[setting] == expected


@pytest.mark.process
def test_this_machine_can_be_inspected() -> None:
    machine = inspect_machine()
    assert machine.torch_gpus <= machine.gpus
    assert (machine.shared_memory_bytes is not None) == Path("/dev/shm").is_dir()


@pytest.mark.parametrize(
    ("change", "setting", "expected"),
    [
        ({"is_shared": False}, "runs_dir", WORK),
        ({"is_shared": None}, "runs_dir", FINE),
        ({"is_shared": False, "must_be": "anything"}, "runs_dir", FINE),
        ({"must_be": "local"}, "runs_dir", TIME),
        ({"free_bytes": 10**9}, "free in runs_dir", WORK),
        ({"skew_seconds": -3.0}, "clock of runs_dir", TIME),
        ({"trouble": "Function not implemented"}, "runs_dir", WORK),
    ],
)
def test_a_folder_is_judged_by_its_use(
    change: dict[str, Any], setting: str, expected: Severity
) -> None:
    assert {each.severity for each in apply(PLACE_RULES, FOLDER)} == {FINE}
    found = apply(PLACE_RULES, replace(FOLDER, **change))
    assert {each.setting: each.severity for each in found}[setting] == expected


def test_a_folder_is_tested_where_it_would_be_made_and_nothing_stays_there(tmp_path: Path) -> None:
    folder = inspect_folder("runs_dir", tmp_path / "a" / "b", "shared", is_written=True)
    assert folder.trouble == ""
    assert abs(folder.skew_seconds) < 1
    assert 0 < folder.free_bytes <= shutil.disk_usage(tmp_path).total
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_read_only_folder_is_reported(tmp_path: Path) -> None:
    kernel = inspect_folder("runs_dir", Path("/proc/runs"), "anything", is_written=True)
    assert kernel.trouble != ""
    absent = inspect_folder("data.dir", tmp_path / "a", "shared", is_written=False)
    assert absent.trouble == "no such folder"


def test_a_silent_tracking_server_is_reported_without_its_password() -> None:
    store = inspect_store("http://me:secret@127.0.0.1:9")
    assert "secret" not in store.uri + store.error
    assert tracking(store).severity == TIME
    assert tracking(inspect_store("sqlite:////tmp/mlflow.db")).severity == FINE
    refused = tracking(inspect_store("file:./mlruns"))
    assert refused.severity == WORK
    assert refused.meaning.startswith("it is a folder")
    assert refused.remedy.startswith("write http://HOST:PORT")
    assert (
        tracking(TrackingStore("sqlite:////home/me/mlflow.db", shared_file=True)).severity == TIME
    )


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer"])
def test_a_missing_container_runtime_costs_work(runtime: str) -> None:
    assert container(runtime, is_there=True).severity == FINE
    assert container(runtime, is_there=False).severity == WORK
