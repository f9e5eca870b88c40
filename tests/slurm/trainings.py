"""Training on a test cluster through the programs, and examining the run."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import torch

from launch.slurm.records.history import Outcome, read_history
from launch.slurm.records.submission import Submission, last_submission
from tests.launch.queued_runs import run_program
from tests.multiprocess.runs import events, newest, result, state, write_recipe
from tests.slurm.cluster import Cluster, wait_until

ROOT = Path(__file__).parents[2]
STEPS = 400
RUNNING = ("running_mean", "running_var")
LAUNCH_SECONDS = 120
"""Until the first checkpoint: ranks import for 8 seconds each, and share the machine's cores."""


@dataclass(frozen=True)
class Training:
    """A run that was submitted."""

    cluster: Cluster
    run_dir: Path

    @property
    def submission(self) -> Submission:
        found = last_submission(self.run_dir)
        assert found
        return found

    @property
    def job_id(self) -> str:
        return self.submission.job_id

    @property
    def history(self) -> list[Outcome]:
        return read_history(self.submission.folder)

    @property
    def outcomes(self) -> list[str]:
        return [outcome.kind for outcome in self.history]

    def nodes(self) -> list[str]:
        """Return the nodes of the last attempt, in the order of ranks."""
        folders = (self.run_dir / "attempts").iterdir()
        last = max(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])
        return list(json.loads((last / "nodes.json").read_bytes()))

    def node_of(self, rank: int) -> str:
        """Return the node of a rank of the last attempt."""
        return self.nodes()[rank // self.submission.layout.ranks_per_node]

    def log(self) -> str:
        """Return the batch log of the job."""
        return "".join(path.read_text() for path in sorted(self.run_dir.glob("logs/job-*.log")))

    def wait_for_step(self, step: int) -> None:
        """Wait for a checkpoint of `step` or later."""
        wait_until(lambda: newest(self.run_dir) >= step, self.log, LAUNCH_SECONDS)

    def wait_for_end(self, state: str = "COMPLETED", seconds: float = 240) -> None:
        """Wait until the job has ended in `state`, and the ranks of all attempts are gone."""
        end = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        def ended() -> bool:
            return self.cluster.job(self.job_id)["JobState"] in end

        wait_until(ended, self.log, seconds)
        found = self.cluster.job(self.job_id)["JobState"]
        assert found == state, self.log()
        wait_until(lambda: not self.orphans(), lambda: f"left: {self.orphans()}", 60)

    def orphans(self) -> list[psutil.Process]:
        """Return the processes of the job that still run."""
        return self.cluster.rank_processes(self.job_id)

    def lost_log_lines(self) -> list[int]:
        """Return the steps that are in the metrics but not in any log of rank 0."""
        text = "".join(path.read_text() for path in self.run_dir.glob("logs/*/rank-0.log"))
        logged = {int(step) for step in re.findall(r"^step (\d+)/", text, re.MULTILINE)}
        return [e["step"] for e in events(self.run_dir, "progress") if e["step"] not in logged]

    def seconds_to_next_step(self, fault_at: float) -> float:
        """Return the seconds from `fault_at` (time.time) to the next attempt's first report."""
        starts = [e["time"] for e in events(self.run_dir, "run_started") if e["time"] > fault_at]
        reports = [e["time"] for e in events(self.run_dir, "progress") if e["time"] > starts[0]]
        return reports[0] - fault_at

    def longest_pause(self, since: float) -> float:
        """Return the longest time between two reports after `since` (time.time), in seconds."""
        times = [e["time"] for e in events(self.run_dir, "progress")]
        return max(later - earlier for earlier, later in pairwise(times) if later > since)


def digits_in(folder: Path) -> Path:
    """Prepare the handwritten digits, and write a configuration for them."""
    data = folder / "digits"
    prepare = [sys.executable, str(ROOT / "data" / "prepare.py"), "digits", "--out", str(data)]
    subprocess.run(prepare, check=True, capture_output=True)
    return write_recipe(folder, data)


def submit(
    cluster: Cluster, recipe: Path, *settings: str, nodes: int = 2, ranks: int = 1
) -> Training:
    """Submit a training of `STEPS` steps."""
    run_dir = recipe.parent / f"run-{time.monotonic_ns()}"
    done = run_program(
        "submit.py",
        *("--nodes", str(nodes), "--ranks", str(ranks), str(recipe)),
        *(f"run_dir={run_dir}", f"train.steps={STEPS}", "slurm.cpus_per_rank=1"),
        *("slurm.run_dir_is_shared=true", "launch.preflight=false", *settings),
        cluster=cluster,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Training(cluster, run_dir)


def unbroken(recipe: Path, *, ranks: int) -> Path:
    """Train without a cluster or a fault; return the run folder."""
    run_dir = recipe.parent / f"unbroken-{ranks}"
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), "--local", str(recipe)]
    command += ["--ranks", str(ranks), f"run_dir={run_dir}", f"train.steps={STEPS}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=240)
    return run_dir


def expect_like(training: Training, whole: Path) -> None:
    """All bits equal those of `whole`, except that running statistics, which are also averaged
    when a stop saves at an odd step, are equal up to rounding."""
    assert newest(training.run_dir) == STEPS, training.log()
    expected, found = state(whole), state(training.run_dir)
    for name, tensor in expected.items():
        if name.endswith(RUNNING):
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
        else:
            assert torch.equal(found[name], tensor), f"{name} differs"
    assert training.lost_log_lines() == []
    assert result(training.run_dir)["images_evaluated"] == 355
