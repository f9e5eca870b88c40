"""launch/cancel.py and launch/resume.py without SLURM; with a real cluster, see tests/slurm."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runs.folder import RESULT
from tests.launch.queued_runs import REPOSITORY, held, run_program
from tests.slurm.cluster import wait_until
from tests.support.run_folders import config, hold_once


def test_a_run_on_this_machine_is_stopped_by_sigterm(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    with held(run_dir) as process:
        refused = run_program("resume.py", run_dir)
        assert refused.returncode == 2
        assert f"process {process.pid}" in refused.stderr
        done = run_program("cancel.py", run_dir)
        assert done.returncode == 0, done.stderr
        assert process.wait(10) == -15


def test_the_launcher_is_asked_instead_of_its_rank(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    module = tmp_path / "holding.py"
    module.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\n"
        "from pipeline.runs.folder import hold_run_folder\n"
        "from tests.support.run_folders import config\n"
        f"run_dir = Path({str(run_dir)!r})\n"
        "with hold_run_folder(config(run_dir.parent, run_dir=run_dir)):\n"
        "    (run_dir / 'ready').touch()\n"
        "    time.sleep(300)\n"
    )
    launch = (
        "import launch.local.ranks as l; print(l.run_ranks(['holding'], ranks=1, cpu_only=True))"
    )
    environment = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", launch], env=environment, stdout=subprocess.PIPE, text=True
    ) as launcher:
        wait_until((run_dir / "ready").exists, lambda: "no rank", 30)
        done = run_program("cancel.py", run_dir)
        assert f"asked process {launcher.pid} to save" in done.stdout
        assert launcher.communicate()[0].strip() == str(128 + 15)
    assert done.returncode == 0


def test_a_run_without_a_process_cannot_be_cancelled(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    done = run_program("cancel.py", run_dir)
    assert done.returncode == 2
    assert "no job and no process" in done.stderr


@pytest.mark.parametrize("program", ["cancel.py", "resume.py"])
def test_a_finished_run_is_refused(program: str, tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    (run_dir / RESULT).write_text("{}")
    done = run_program(program, run_dir)
    assert done.returncode == 2
    assert "is finished" in done.stderr


@pytest.mark.parametrize("program", ["cancel.py", "resume.py"])
def test_a_folder_that_is_not_a_run_is_refused(program: str, tmp_path: Path) -> None:
    done = run_program(program, tmp_path)
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr


def test_without_slurm_resuming_prints_the_command_for_this_machine(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    done = run_program("resume.py", run_dir, "train.log_every_steps=5")
    assert done.returncode == 0
    expected = f"submit.py --local {run_dir}/config.yaml run_dir={run_dir} train.log_every_steps=5"
    assert expected in done.stdout
