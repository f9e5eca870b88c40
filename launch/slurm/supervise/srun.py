"""Starting all ranks of an attempt with srun, as one step of the job."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from launch.slurm.api.environment import for_steps
from launch.slurm.records.attempt import Attempt
from launch.slurm.records.submission import Submission
from pipeline.config.schema import Container, Slurm
from pipeline.runs.fence import TOKEN

WAIT_SECONDS = 60
"""Once a rank has ended without an error, the others have this long to end."""
KILL_SECONDS = 30.0

OF_STEPS = {
    *("acctg-freq", "distribution", "gpu-bind", "gpu-freq", "hint", "mem-bind", "network"),
    *("overcommit", "profile", "threads-per-core"),
}
"""Options of `slurm.sbatch` that srun must be given, too."""


class JobStep(AbstractContextManager["JobStep"]):
    """The running ranks of an attempt; leaving the block ends those that still run."""

    def __init__(self, submission: Submission, attempt: Attempt, nodes: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            srun_command(submission, attempt, nodes),
            stdin=subprocess.DEVNULL,
            env=rank_environment(submission, attempt),
            process_group=0,  # signals to the batch script must not reach srun
        )

    def poll(self) -> int | None:
        """Return the highest exit code of all ranks once they have ended."""
        code = self._process.poll()
        return None if code is None else abs(code)

    def end(self) -> None:
        """End all ranks: with SIGTERM, then with SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()


def srun_command(submission: Submission, attempt: Attempt, nodes: Sequence[str]) -> list[str]:
    """Return the command that starts one task for each rank on `nodes`."""
    layout = submission.layout
    program = ["-P", "-u", "-m", "launch.slurm.supervise.rank", str(attempt.run_dir), attempt.token]
    container = submission.slurm.container
    return [
        "srun",
        "--overlap",  # the previous step holds its resources if it hangs on a lost node
        "--mpi=none",
        f"--nodes={len(nodes)}",
        f"--nodelist={','.join(nodes)}",
        f"--ntasks={len(nodes) * layout.ranks_per_node}",
        f"--ntasks-per-node={layout.ranks_per_node}",
        f"--cpus-per-task={layout.cpus_per_rank}",  # srun does not inherit it from sbatch
        *([f"--gpus-per-node={submission.gpus}"] if layout.gpus_per_node else []),
        "--distribution=block",  # the ranks of a node follow each other
        "--kill-on-bad-exit=1",
        f"--wait={WAIT_SECONDS}",
        "--export=ALL",
        "--unbuffered",
        f"--job-name={attempt.token}",
        f"--output={attempt.logs}/rank-%t.log",
        *_options_of_steps(submission.slurm),
        *submission.slurm.srun,
        *_in_container(container, submission, program),
    ]


def rank_environment(submission: Submission, attempt: Attempt) -> dict[str, str]:
    """Return the environment variables of the ranks."""
    threads = {"OMP_NUM_THREADS": str(submission.layout.cpus_per_rank)}
    own = for_steps(os.environ) | submission.environment
    return threads | own | {TOKEN: attempt.token}


def _options_of_steps(slurm: Slurm) -> list[str]:
    """Return the options of `slurm.sbatch` that a step does not take over from its job."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in slurm.sbatch.items()
        if name in OF_STEPS and value is not False
    ]


def _in_container(
    container: Container | None, submission: Submission, program: list[str]
) -> list[str]:
    """Return srun's options for a container, if there is one, and then the program."""
    if container is None:
        return [submission.python, *program]
    own = [f"{folder}:{folder}" for folder in (submission.run_dir, submission.directory)]
    mounts = [*own, *container.mounts]
    match container.runtime:
        case "pyxis":
            return [
                f"--container-image={container.image}",
                f"--container-mounts={','.join(mounts)}",
                f"--container-workdir={submission.directory}",
                "--no-container-mount-home",
                "python",
                *program,
            ]
        case "apptainer":
            binds = [argument for mount in mounts for argument in ("--bind", mount)]
            inside = ["--pwd", str(submission.directory), container.image, "python"]
            return ["apptainer", "exec", "--nv", *binds, *inside, *program]
