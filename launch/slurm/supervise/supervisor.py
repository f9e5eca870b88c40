"""The batch side of a job: starts attempts until the run finishes or retrying is pointless.

It runs once in a job, on the job's first node, and decides from the files on disk.
"""

import signal
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType

from launch.slurm.api.cli import SlurmError, retry
from launch.slurm.api.current_job import CurrentJob
from launch.slurm.api.nodes import JobNode, read_nodes
from launch.slurm.records.attempt import Attempt
from launch.slurm.records.history import Outcome, append_outcome, read_history
from launch.slurm.records.submission import Submission, last_submission
from launch.slurm.supervise.outcome import Circumstances, outcome_of
from launch.slurm.supervise.restart_policy import (
    Cancel,
    Decision,
    Done,
    GiveUp,
    Requeue,
    Restart,
    RestartLimits,
    decide,
)
from launch.slurm.supervise.srun import JobStep
from pipeline.system.output import lasting_output
from pipeline.system.patience import patiently
from pipeline.system.signals import STOPS

POLL_SECONDS = 0.2
LOOK_SECONDS = 10.0
"""How often a job with spare nodes checks whether one of its nodes was lost."""
START_SECONDS = 60.0
"""How long srun may fail to start any rank, for example just after a controller restart."""
EARLY_SECONDS = 90.0
"""SLURM may send the notice of the time limit up to a minute early."""


class RunFailed(RuntimeError):  # noqa: N818 - the last line of the job's log
    """The run is given up; gives the reason, and the traceback of the rank that failed first."""


def supervise(run_dir: str) -> str:
    """Train the run in `run_dir` in this job; return the outcome in words.

    Raises `RunFailed` if it is given up.
    """
    submission = last_submission(Path(run_dir))
    assert submission is not None, "a queued run has a submission"
    job, layout = CurrentJob.mine(), submission.layout
    with lasting_output(), noting_stops() as stops:
        for number in count():
            nodes = choose_nodes(job, read_history(submission.folder), layout.nodes)
            if len(nodes) < layout.nodes:
                return carry_out(Requeue("too few nodes are left"), job)
            attempt = Attempt(submission.run_dir, f"{job.id}.{job.restart}.{number}")
            outcome = run_attempt(submission, job, attempt, nodes, stops)
            append_outcome(submission.folder, outcome)
            decision = decide(read_history(submission.folder), limits_of(submission))
            error = f": {outcome.error}" if outcome.error else ""
            say(f"attempt {attempt.token} {outcome.kind} at checkpoint {outcome.step}{error}")
            if stops or not isinstance(decision, Restart):
                return carry_out(decision, job)
    raise AssertionError("the count is endless")


def run_attempt(
    submission: Submission,
    job: CurrentJob,
    attempt: Attempt,
    nodes: Sequence[JobNode],
    stops: Sequence[signal.Signals],
) -> Outcome:
    """Start all ranks on `nodes`, wait for them to end, and return the outcome."""
    names, started = [node.name for node in nodes], time.monotonic()
    attempt.begin({node.name: node.address for node in nodes})
    say(f"attempt {attempt.token} on {', '.join(names)}; logs in {attempt.logs}")
    code = retry(lambda: run_step(submission, job, attempt, names), START_SECONDS)
    notice = submission.slurm.stop_notice_seconds + EARLY_SECONDS
    circumstances = Circumstances(
        code=code,
        seconds=time.monotonic() - started,
        node_lost=any(node.is_lost for node in retry(lambda: read_nodes(names))),
        asked=bool(stops),
        at_limit=job.seconds_left() < notice,
    )
    world_size = submission.layout.world_size
    return patiently(lambda: outcome_of(attempt, world_size, circumstances))


def run_step(submission: Submission, job: CurrentJob, attempt: Attempt, names: list[str]) -> int:
    """Start all ranks, wait for them to end, and return the highest exit code.

    Raises `SlurmError` if none of them started.
    """
    job.record()  # waits for the controller
    with JobStep(submission, attempt, names) as step:
        code = await_end(step, names, has_spares=submission.layout.spare_nodes > 0)
    if code and not any(attempt.logs.iterdir()):
        raise SlurmError(
            f"srun could not start the ranks, exit code {code}; its messages are above"
        )
    return code


def await_end(step: JobStep, names: list[str], *, has_spares: bool) -> int:
    """Wait for a step and return its exit code; with spare nodes, end it once a node is lost."""
    looked = time.monotonic()
    while (code := step.poll()) is None:
        time.sleep(POLL_SECONDS)
        if has_spares and time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            with suppress(SlurmError):  # the controller may be down for a while
                if any(node.is_lost for node in read_nodes(names)):
                    step.end()
    return code


def choose_nodes(job: CurrentJob, history: Sequence[Outcome], wanted: int) -> list[JobNode]:
    """Return up to `wanted` usable nodes of the job; the node of the last failure is avoided."""
    nodes = retry(lambda: read_nodes(job.nodes))
    usable = [node for node in nodes if node.is_usable]
    failed = history[-1].node if history else ""
    chosen = sorted(usable, key=lambda node: node.name == failed)[:wanted]
    return sorted(chosen, key=lambda node: job.nodes.index(node.name))


def carry_out(decision: Decision, job: CurrentJob) -> str:
    """Requeue or cancel the job, as decided; return the outcome in words.

    Raises `RunFailed` if it is given up.
    """
    match decision:
        case Done():
            return "done"
        case Cancel():
            job.cancel()
            return "cancelled"
        case Requeue(reason) | Restart(reason):  # a stop signal turns a restart into a requeue
            job.requeue()
            return f"requeued: {reason}"
        case GiveUp(reason):
            raise RunFailed(reason)


def limits_of(submission: Submission) -> RestartLimits:
    """Return how often the run may start again."""
    slurm = submission.slurm
    return RestartLimits(slurm.attempts_without_progress, slurm.time_limits, slurm.preemptions)


@contextmanager
def noting_stops() -> Generator[list[signal.Signals]]:
    """Collect stop signals during the block instead of ending this process.

    SLURM sends them to the ranks as well, and this process waits for those.
    """
    stops: list[signal.Signals] = []

    def note(number: int, _frame: FrameType | None) -> None:
        stops.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(message: str) -> None:
    """Print a line with the time to the job's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", flush=True)
