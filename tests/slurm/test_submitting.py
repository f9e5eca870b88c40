"""Submitting checks everything first and keeps the code; a refusal leaves nothing behind."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from launch.slurm.records.submission import last_submission
from launch.submit import main
from pipeline.system.mounts import shared
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.lab import Lab
from tests.slurm.trainings import ROOT, digits_in

Submit = Callable[..., tuple[int, str, str]]

HELD = ("slurm.sbatch={hold: true}", "slurm.run_dir_is_shared=true")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_in(tmp_path_factory.mktemp("submitting"))


@pytest.fixture
def submit(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Submit:
    """Call the program in this process, which has imported torch: exit code, output and errors."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_a_dry_run_shows_the_script_and_writes_nothing(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    code, shown, errors = submit(
        *("--dry-run", "--nodes", 2, "--ranks", 1, recipe, f"runs_dir={tmp_path / 'runs'}", *HELD),
        *("slurm.time_limit=02:30:00", "slurm.qos=normal", "slurm.setup=[module load gcc]"),
    )
    assert code == 0, errors
    for line in (
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --time=150",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --requeue",
        "#SBATCH --hold",
        "#SBATCH --qos=normal",
        "module load gcc",
    ):
        assert line in shown.splitlines()
    assert list(tmp_path.iterdir()) == []
    assert cluster.run("squeue", "--noheader") == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "9"], "--nodes 9"),
        (["--nodes", "3", "train.global_batch=16"], "train.global_batch=16"),
        (["slurm.partition=mian"], "main"),
        (["slurm.gpus_per_node=64"], "slurm.gpus_per_node"),
        (["data.dir=nowhere"], "nowhere"),
    ],
)
def test_what_cannot_run_is_refused_before_it_queues(
    submit: Submit, recipe: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, _, errors = submit(recipe, f"runs_dir={tmp_path / 'runs'}", *HELD, *arguments)
    assert code == 2
    assert said in errors
    assert list(tmp_path.iterdir()) == []


def test_a_queued_run_keeps_its_code_and_configuration(
    submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    arguments = ("--ranks", 1, recipe, f"run_dir={run_dir}", *HELD)
    code, shown, errors = submit(*arguments)
    assert code == 0, errors
    found = last_submission(run_dir)
    assert found
    for what in (found.job_id, str(run_dir), "status.py", "cancel.py", "rank-0.log", "--runs-dir"):
        assert what in shown
    for package in ("pipeline", "launch"):
        theirs, ours = (folder / package / "__init__.py" for folder in (found.code, ROOT))
        assert theirs.read_bytes() == ours.read_bytes()
    kept = json.loads((found.folder / "environment.json").read_text())
    assert kept["packages"]["torch"]
    assert (found.folder / "requirements.lock").exists()
    assert (run_dir / "config.yaml").exists()
    (script,) = found.folder.glob(f"submitit/{found.job_id}_submission.sh")
    assert f"export PYTHONPATH={found.code}" in script.read_text()

    code, _, errors = submit(*arguments)
    assert code == 2
    assert f"already has job {found.job_id} (PENDING)" in errors


def test_the_same_command_is_refused_while_the_run_has_a_job(
    cluster: Cluster, submit: Submit, recipe: Path, tmp_path: Path
) -> None:
    arguments = ("--ranks", 1, recipe, f"runs_dir={tmp_path / 'runs'}", *HELD)
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), *map(str, arguments)]
    together = [
        subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=-2)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[0].decode() for process in together]
    assert sorted(process.returncode for process in together) == [0, 2], said
    (run,) = (tmp_path / "runs").glob("tiny-*")
    found = last_submission(run)
    assert found
    for options in ((), ("--local",), ("--executor", "debug")):
        code, _, errors = submit(*options, *arguments)
        assert code == 2
        assert f"{run} already has job {found.job_id} (PENDING)" in errors
        assert "--new" in errors
    replace(found, job_id="").save()  # as if it was interrupted before it could record the number
    code, _, errors = submit(*arguments)
    assert code == 2
    assert f"{run} already has job {found.job_id} (PENDING)" in errors
    code, shown, errors = submit("--new", *arguments)
    assert code == 0, errors
    assert str(run) not in shown
    assert len(list((tmp_path / "runs").glob("tiny-*"))) == 2
    assert len(cluster.run("squeue", "--noheader").splitlines()) == 2


def test_watching_shows_the_reason_and_ctrl_c_leaves_the_job_alone(
    cluster: Cluster, recipe: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), "--watch", str(recipe), *HELD]
    command += ["--ranks", "1"]
    log = tmp_path / "watch.log"
    with log.open("w") as output:
        watching = subprocess.Popen(
            [*command, f"run_dir={tmp_path / 'run'}"],
            stdout=output,
            stderr=output,
            env=cluster.environment,
        )
        wait_until(lambda: "JobHeldUser" in log.read_text(), log.read_text, 60)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
    assert "number 1 of 1 pending (JobHeldUser)" in log.read_text()
    found = last_submission(tmp_path / "run")
    assert found
    time.sleep(1)
    assert cluster.job(found.job_id)["JobState"] == "PENDING"


def test_a_folder_that_only_this_machine_can_see_is_refused(
    lab: Lab, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", lab.environment["SLURM_CONF"])
    monkeypatch.chdir(tmp_path)
    is_shared, _ = shared(tmp_path)
    assert main(["--ranks", "1", "--dry-run", str(recipe)]) == (2 if is_shared is False else 0)
