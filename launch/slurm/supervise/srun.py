"""Starting all ranks of an attempt with srun, as one step of the job."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from threading import Thread
from types import TracebackType
from typing import IO

from launch.slurm.api.environment import for_steps
from launch.slurm.records.attempt import Attempt
from launch.slurm.records.submission import Submission
from pipeline.config.schema import Container, Slurm
from pipeline.runs.fence import TOKEN

WAIT_SECONDS = 60
"""Once a rank has ended without an error, the others have this long to end."""
KILL_SECONDS = 30.0
LAST_MESSAGES_SECONDS = 1.0
"""Time to read the output of an srun that has ended, if another process holds its pipes open."""

OF_STEPS = {
    *("acctg-freq", "distribution", "gpu-bind", "gpu-freq", "hint", "mem-bind", "network"),
    *("overcommit", "profile", "threads-per-core"),
}
"""Options of `slurm.sbatch` that srun needs, too."""


class JobStep(AbstractContextManager["JobStep"]):
    """Running tasks that srun started; leaving the block ends those that still run.

    srun's messages are passed on to standard error.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.output: list[str] = []
        """The lines that the tasks printed so far, unless they go to files."""
        self.messages: list[str] = []
        """The lines that srun itself printed so far."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            process_group=0,  # signals to the batch script must not reach srun
        )
        self._readers = [
            Thread(target=self._read, args=(stream, lines, copy), daemon=True)
            for stream, lines, copy in (
                (self._process.stdout, self.output, None),
                (self._process.stderr, self.messages, sys.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    def poll(self) -> int | None:
        """Return the highest exit code of all tasks once they have ended."""
        code = self._process.poll()
        if code is None:
            return None
        for reader in self._readers:
            reader.join(LAST_MESSAGES_SECONDS)
        return abs(code)

    def end(self, seconds: float = KILL_SECONDS) -> None:
        """End all tasks: with SIGTERM, and `seconds` later with SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()

    @staticmethod
    def _read(stream: IO[str], lines: list[str], copy: IO[str] | None) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                if copy is not None:
                    with suppress(OSError, ValueError):  # a closed terminal must not block srun
                        copy.write(line)
                        copy.flush()


def srun_command(submission: Submission, attempt: Attempt, nodes: Sequence[str]) -> list[str]:
    """Return the command that starts one task for each rank on `nodes`."""
    layout = submission.layout
    program = ["-P", "-u", "-m", "launch.slurm.supervise.rank", str(attempt.run_dir), attempt.token]
    container = submission.slurm.container
    return [
        *_srun(nodes, layout.ranks_per_node, layout.cpus_per_rank),
        *_gpus(submission),
        "--kill-on-bad-exit=1",
        f"--wait={WAIT_SECONDS}",
        f"--job-name={attempt.token}",
        f"--output={attempt.logs}/rank-%t.log",
        *_options_of_steps(submission.slurm),
        *submission.slurm.srun,
        *_in_container(container, submission, program),
    ]


def check_command(
    submission: Submission, nodes: Sequence[str], program: str, argument: str
) -> list[str]:
    """Return the command that runs the text of a Python program once on each of `nodes`."""
    return [
        *_srun(nodes, 1, 1),
        *_gpus(submission),
        "--kill-on-bad-exit=0",
        "--label",
        "--chdir=/",
        "--job-name=node-check",
        *(submission.python, "-P", "-u", "-c", program, argument),
    ]


def _srun(nodes: Sequence[str], tasks_per_node: int, cpus: int) -> list[str]:
    return [
        "srun",
        "--overlap",  # the previous step holds its resources if it hangs on a lost node
        "--mpi=none",
        f"--nodes={len(nodes)}",
        f"--nodelist={','.join(nodes)}",
        f"--ntasks={len(nodes) * tasks_per_node}",
        f"--ntasks-per-node={tasks_per_node}",
        f"--cpus-per-task={cpus}",  # srun does not inherit it from sbatch
        "--distribution=block",  # the ranks of a node follow each other
        "--export=ALL",
        "--unbuffered",
    ]


def _gpus(submission: Submission) -> list[str]:
    return [f"--gpus-per-node={submission.gpus}"] if submission.layout.gpus_per_node else []


def rank_environment(submission: Submission, attempt: Attempt) -> dict[str, str]:
    """Return the environment variables of the ranks."""
    threads = {"OMP_NUM_THREADS": str(submission.layout.cpus_per_rank)}
    own = for_steps(os.environ) | submission.environment
    return threads | own | {TOKEN: attempt.token}


def _options_of_steps(slurm: Slurm) -> list[str]:
    """Return the options of `slurm.sbatch` that a step does not inherit from its job."""
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
