"""launch/status.py on a machine without SLURM; with a real cluster, see tests/slurm."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from pipeline.runs.folder import RESULT
from pipeline.tracking.jsonl import METRICS
from tests.launch.queued_runs import command_of, held, run_program
from tests.support.run_folders import config, hold_once, progress, run_started, write_events


def status(*arguments: str | Path) -> Any:
    done = run_program("status.py", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_missing_place_is_a_mistake_with_a_remedy(tmp_path: Path) -> None:
    done = run_program("status.py", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere does not exist; name" in done.stderr
    assert "Traceback" not in done.stderr


def test_runs_on_this_machine_are_shown(tmp_path: Path) -> None:
    running, finished = hold_once(config(tmp_path)), hold_once(config(tmp_path, seed=1))
    (finished / RESULT).write_text("{}")
    write_events(running, run_started(running), progress(20))
    (running / "checkpoints/step-00000010").mkdir()
    with held(running):
        shown = {each["name"]: each for each in status(tmp_path)}
        lone = status(running)
    assert shown[finished.name]["state"] == "finished"
    assert shown[running.name] | {"checkpoint_age_seconds": 0} == {
        **shown[running.name],
        "state": "running",
        "step": 20,
        "last_step": 1000,
        "images_per_second": 1234.5,
        "checkpoint_step": 10,
        "checkpoint_age_seconds": 0,
        "restarts": 0,
    }
    assert lone["world_size"] == 2
    assert status(running)["state"] == "running"  # it reported something moments ago
    os.utime(running / METRICS, (0, 0))
    assert status(running)["state"] == "lost"


def test_looking_at_a_run_never_keeps_it_from_starting(tmp_path: Path) -> None:
    run_dir = hold_once(config(tmp_path))
    with subprocess.Popen(
        ["sh", "-c", f"while :; do {' '.join(command_of('status.py', tmp_path))}; done"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as looking:
        for _ in range(100):
            hold_once(config(tmp_path, run_dir=run_dir))
            time.sleep(0.02)
        os.killpg(looking.pid, 9)
