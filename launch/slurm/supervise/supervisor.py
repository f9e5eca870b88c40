"""The batch side of a job: starts attempts at a run until it is done, or nothing more can be won.

It runs once in a job, on the job's first node, and judges by what is on disk.
"""

import os
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import FrameType

from launch.slurm.api.cli import SlurmError, host_names, insist, show, slurm
from launch.slurm.api.jobs import moment
from launch.slurm.api.nodes import Node, read_nodes
from launch.slurm.records.attempt import Attempt
from launch.slurm.records.history import append_outcome, read_history
from launch.slurm.records.submission import Submission, last_submission
from launch.slurm.supervise.outcome import Circumstances, describe
from launch.slurm.supervise.restart_policy import (
    Bounds,
    Cancel,
    Done,
    GiveUp,
    Outcome,
    Requeue,
    Restart,
    Verdict,
    decide,
)
from launch.slurm.supervise.srun import Step
from pipeline.config.schema.slurm import minutes_of
from pipeline.system.signals import STOPS

POLL_SECONDS = 0.2
LOOK_SECONDS = 10.0
"""Between two looks at whether a node was lost, where a spare one could take its place."""
START_SECONDS = 60.0
"""How long srun may fail to start any rank, such as for a controller that has just come back."""
EARLY_SECONDS = 90.0
"""SLURM may send the notice of the time limit up to a minute early."""


class RunFailed(RuntimeError):  # noqa: N818 - what the job's log ends with
    """The run is given up; says why, with the traceback of the rank that failed first."""


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that this process belongs to."""

    id: str
    restart: int
    nodes: list[str]

    @classmethod
    def mine(cls) -> "CurrentJob":
        """Return the job of this process.

        SLURM_JOB_ID of one element of an array is the whole array's, all of which scancel ends.
        """
        array, index = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
        return cls(
            f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"],
            int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            insist(lambda: host_names(os.environ["SLURM_JOB_NODELIST"])),
        )

    def record(self) -> dict[str, str]:
        """Return what SLURM tells of the job."""
        return insist(lambda: show("job", self.id))[0]

    def seconds_left(self) -> float:
        """Return how long the job may take until its limit, which may have changed meanwhile.

        Its EndTime says less: that of a job that is preempted is the end of its grace.
        """
        record = self.record()
        started = moment(record.get("StartTime", ""))
        try:
            minutes = minutes_of(record.get("TimeLimit", ""))
        except ValueError:  # UNLIMITED
            return float("inf")
        return float("inf") if started is None else started + 60 * minutes - time.time()


def supervise(run_dir: str) -> str:
    """Train the run in `run_dir` in this job; return what became of it.

    Raises `RunFailed` if it is given up.
    """
    submission = last_submission(Path(run_dir))
    assert submission is not None, "whoever queued the job wrote it down"
    job, layout = CurrentJob.mine(), submission.layout
    with noting_stops() as heard:
        for number in count():
            nodes = choose_nodes(job, read_history(submission.folder), layout.nodes)
            if len(nodes) < layout.nodes:
                return carry_out(Requeue("too few nodes are left"), job)
            attempt = Attempt(submission.run_dir, f"{job.id}.{job.restart}.{number}")
            outcome = make_attempt(submission, job, attempt, nodes, heard)
            append_outcome(submission.folder, outcome)
            verdict = decide(read_history(submission.folder), bounds_of(submission))
            error = f": {outcome.error}" if outcome.error else ""
            say(f"attempt {attempt.token} {outcome.ending} at checkpoint {outcome.step}{error}")
            if heard or not isinstance(verdict, Restart):
                return carry_out(verdict, job)
    raise AssertionError("counting does not end")


def make_attempt(
    submission: Submission,
    job: CurrentJob,
    attempt: Attempt,
    nodes: Sequence[Node],
    heard: Sequence[signal.Signals],
) -> Outcome:
    """Start all ranks on `nodes`, await their end, and return how it came."""
    names, started = [node.name for node in nodes], time.monotonic()
    attempt.begin({node.name: node.address for node in nodes})
    say(f"attempt {attempt.token} on {', '.join(names)}; logs in {attempt.logs}")
    code = insist(lambda: run_step(submission, job, attempt, names), START_SECONDS)
    notice = submission.slurm.stop_notice_seconds + EARLY_SECONDS
    circumstances = Circumstances(
        code=code,
        seconds=time.monotonic() - started,
        node_lost=any(node.is_lost for node in insist(lambda: read_nodes(names))),
        asked=bool(heard),
        at_limit=job.seconds_left() < notice,
    )
    return describe(attempt, submission.layout.world_size, circumstances)


def run_step(submission: Submission, job: CurrentJob, attempt: Attempt, names: list[str]) -> int:
    """Start all ranks, await their end, and return the highest exit code.

    Raises `SlurmError` if not one of them was started.
    """
    job.record()  # waits until the controller is there
    with Step(submission, attempt, names) as step:
        code = await_end(step, names, has_spares=submission.layout.spare_nodes > 0)
    if code and not any(attempt.logs.iterdir()):
        raise SlurmError(f"srun could not start the ranks, exit code {code}; its words are above")
    return code


def await_end(step: Step, names: list[str], *, has_spares: bool) -> int:
    """Return the exit code of a step once it ends, or is ended since it has lost a node."""
    looked = time.monotonic()
    while (code := step.poll()) is None:
        time.sleep(POLL_SECONDS)
        if has_spares and time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            with suppress(SlurmError):  # its controller may be away for a while
                if any(node.is_lost for node in read_nodes(names)):
                    step.end()
    return code


def choose_nodes(job: CurrentJob, history: Sequence[Outcome], wanted: int) -> list[Node]:
    """Return `wanted` usable nodes of the job, or fewer; where the last failure was comes last."""
    nodes = insist(lambda: read_nodes(job.nodes))
    usable = [node for node in nodes if node.is_usable]
    failed = history[-1].node if history else ""
    chosen = sorted(usable, key=lambda node: node.name == failed)[:wanted]
    return sorted(chosen, key=lambda node: job.nodes.index(node.name))


def carry_out(verdict: Verdict, job: CurrentJob) -> str:
    """Do what `verdict` says with the job; return what became of the run."""
    match verdict:
        case Done():
            return "done"
        case Cancel():
            insist(lambda: slurm("scancel", job.id))
            return "cancelled"
        case Requeue(reason) | Restart(reason):
            # Who cancels a job, or requeues it himself, has had his way: its state is another.
            if job.record()["JobState"] == "RUNNING":
                insist(lambda: slurm("scontrol", "requeue", job.id))
            return f"to go on: {reason}"
        case GiveUp(reason):
            raise RunFailed(reason)


def bounds_of(submission: Submission) -> Bounds:
    """Return how often the run may come back."""
    slurm = submission.slurm
    return Bounds(slurm.attempts_without_progress, slurm.time_limits, slurm.preemptions)


@contextmanager
def noting_stops() -> Generator[list[signal.Signals]]:
    """Yield the signals to stop that came; they end nobody in the block.

    SLURM sends them to the ranks as well, whose end is what this process waits for.
    """
    heard: list[signal.Signals] = []

    def note(number: int, _frame: FrameType | None) -> None:
        heard.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(message: str) -> None:
    """Write a line to the job's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", flush=True)
