"""A node reports what a rank would find there, and is judged together with the others."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from launch.slurm.supervise import node_check
from launch.slurm.supervise.node_check import (
    PROGRAM,
    Answers,
    Report,
    Verdict,
    ask_nodes,
    judge_nodes,
)
from launch.slurm.supervise.node_report import count_gpus, is_missing_or_empty
from pipeline.runs.folder import CONFIG_FILE
from tests.support.small_disk import small_disk

FINE = Report([], [], 4, 0.0)
NODES = ["n1", "n2", "n3"]


def report(run_dir: Path, dataset: Path, images: str = "") -> list[dict[str, Any]]:
    """Return the lines that the program prints on a node called n1."""
    wanted = {"run_dir": str(run_dir), "config_file": CONFIG_FILE}
    wanted |= {"dataset": str(dataset), "images": images}
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, json.dumps(wanted)],
        env={"SLURMD_NODENAME": "n1", "TMPDIR": str(run_dir.parent)},
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A run folder, and a dataset with one image."""
    run_dir, dataset = tmp_path / "run", tmp_path / "data"
    (dataset / "images").mkdir(parents=True)
    (dataset / "images" / "0.jpeg").touch()
    (dataset / "manifest.json").write_text('{"root": "images"}')
    run_dir.mkdir()
    (run_dir / CONFIG_FILE).touch()
    return run_dir, dataset


@pytest.mark.process
def test_a_full_disk_is_not_the_fault_of_a_node(tmp_path: Path, places: tuple[Path, Path]) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk.folder / CONFIG_FILE).touch()
        disk.fill()
        found = report(disk.folder, places[1])[-1]
    assert found["faults"] == []
    assert any("0 MiB free" in warning for warning in found["warnings"])


@pytest.mark.process
def test_a_node_with_everything_has_no_faults(places: tuple[Path, Path]) -> None:
    *steps, last = report(*places)
    assert [line["node"] for line in (*steps, last)] == ["n1"] * 5
    assert (last["faults"], last["gpus"]) == ([], 0)
    assert list(places[0].iterdir()) == [places[0] / CONFIG_FILE]


@pytest.mark.process
def test_each_missing_thing_is_named(places: tuple[Path, Path], tmp_path: Path) -> None:
    run_dir, dataset = places
    nowhere = tmp_path / "nowhere"
    faults = report(nowhere, nowhere)[-1]["faults"]
    assert faults == [f"the run folder {nowhere} is missing", f"the dataset {nowhere} is missing"]
    (dataset / "images" / "0.jpeg").unlink()
    (fault,) = report(run_dir, dataset)[-1]["faults"]
    assert f"{dataset / 'images'} is missing or empty" in fault
    (dataset / "manifest.json").write_text("{")
    (fault,) = report(run_dir, dataset)[-1]["faults"]
    assert fault.startswith(f"the dataset {dataset} is damaged")


def judge(
    reports: dict[str, Report], messages: tuple[str, ...] = (), *, trained: bool = False
) -> Verdict:
    answers = Answers(reports, {"n2": "the run folder /r"} if "n2" not in reports else {})
    names = NODES if len(reports) != 1 or "n2" not in reports else ["n2"]
    return judge_nodes(names, answers, messages, gpus=4, trained=trained)


def test_a_node_that_hangs_is_named_with_what_it_looks_at() -> None:
    verdict = judge({"n1": FINE, "n3": FINE})
    assert verdict.faults == {"n2": "it hangs while checking the run folder /r"}


@pytest.mark.parametrize(
    "messages",
    [
        ("1: slurmstepd-n2: error: execve(): /venv/python: No such file",),
        ("1: Fatal Python error: no module encodings",),
        (),
    ],
)
def test_a_node_where_python_does_not_start_is_named(messages: tuple[str, ...]) -> None:
    said = (*messages, "srun: error: n2: task 1: Exited with exit code 2")
    answers = Answers({"n1": FINE, "n3": FINE})
    verdict = judge_nodes(NODES, answers, said, gpus=0, trained=False)
    (fault,) = verdict.faults.values()
    assert fault.startswith("Python does not start there: ")
    expected = (
        messages[0].split("error: ")[-1].removeprefix("1: ")
        if messages
        else "Exited with exit code 2"
    )
    assert expected in fault


def test_a_node_with_fewer_gpus_than_ranks_need_is_named_if_others_have_them() -> None:
    some, none = Report([], [], 3, 0.0), Report([], [], 0, 0.0)
    verdict = judge({"n1": FINE, "n2": some, "n3": FINE})
    assert verdict.faults == {"n2": "only 3 of 4 GPUs work"}
    assert judge({"n1": none, "n2": none, "n3": none}).faults == {}


def test_a_fault_of_all_nodes_is_not_theirs() -> None:
    bad = Report(["the dataset /d is missing"], [], 4, 0.0)
    verdict = judge(dict.fromkeys(NODES, bad), trained=True)
    assert verdict.faults == {}
    assert verdict.warnings[0] == "n1: the dataset /d is missing"


def test_the_only_node_of_a_run_is_blamed_for_what_was_there_before() -> None:
    bad = Report(["the dataset /d is missing"], [], 4, 0.0)
    assert judge({"n2": bad}, trained=True).faults == {"n2": "the dataset /d is missing"}
    assert judge({"n2": bad}, trained=False).faults == {}


def test_no_node_is_blamed_if_srun_itself_fails() -> None:
    said = ["srun: error: Unable to confirm allocation for job 5: Unable to contact controller"]
    verdict = judge_nodes(["n2"], Answers(is_cut_off=False), said, gpus=0, trained=True)
    assert verdict == Verdict({}, [f"srun could not check the nodes: {said[0]}"])


def ask(*lines: str, wanted: int) -> Answers:
    """Ask n1 and n2 with a shell in the place of srun."""
    command = ["sh", "-c", "\n".join(lines)]
    return ask_nodes(command, os.environ, ["n1", "n2"], wanted=wanted)[0]


def answer(task: int) -> str:
    report = {"node": f"n{task + 1}", **asdict(FINE)}
    return f"echo '{task}: {json.dumps(report)}'"


@pytest.mark.process
def test_a_slow_node_is_waited_for_only_if_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_check, "CHECK_SECONDS", 0.5)
    needed = ask(answer(0), "sleep 1.5", answer(1), wanted=2)
    assert needed.reports.keys() == {"n1", "n2"}
    spare = ask(answer(0), "sleep 60", answer(1), wanted=1)
    assert (spare.reports.keys(), spare.limit) == ({"n1"}, 0.5)
    failed = ask(answer(0), "echo 'srun: error: n2: task 1: Killed' >&2", "sleep 60", wanted=2)
    assert failed.reports.keys() == {"n1"}


@pytest.mark.process
def test_a_stop_ends_the_check() -> None:
    stopped, _ = ask_nodes(["sleep", "60"], os.environ, ["n1"], wanted=1, stops=[signal.SIGTERM])
    assert stopped.reports == {}


def test_only_the_first_entry_of_a_folder_with_images_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_missing_or_empty(tmp_path / "nowhere")
    assert is_missing_or_empty(tmp_path)
    (tmp_path / "0.jpeg").touch()
    assert not is_missing_or_empty(tmp_path)
    assert is_missing_or_empty(tmp_path / "0.jpeg")

    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", refuse)
    assert not is_missing_or_empty(tmp_path)


def test_parts_of_a_gpu_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1a,MIG-2b,MIG-3c")
    assert count_gpus() == 3


def test_an_answer_proves_a_wrong_clock_only_outside_of_the_time_that_it_took() -> None:
    answers = Answers()
    for node, clock in (("n1", 101.0), ("n2", 90.0), ("n3", 112.0)):
        line: dict[str, Any] = {
            "node": node,
            "faults": [],
            "warnings": [],
            "gpus": 0,
            "time": clock,
        }
        answers.add(json.dumps(line), asked=100.0, now=105.0)
    answers.add("no JSON", asked=100.0, now=105.0)
    answers.add("17", asked=100.0, now=105.0)
    assert answers.clocks_ahead == {"n1": 0.0, "n2": -10.0, "n3": 7.0}
