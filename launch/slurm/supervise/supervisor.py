"""The batch side of a job: starts attempts until the run finishes or retrying is pointless.

It runs once in a job, on the job's first node, and decides from the files on disk.
"""

import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType

from launch.slurm.api.cli import SlurmError, retry
from launch.slurm.api.current_job import CurrentJob
from launch.slurm.api.nodes import JobNode, read_nodes
from launch.slurm.records.attempt import Attempt, next_attempt
from launch.slurm.records.history import Outcome, append_outcome, read_history
from launch.slurm.records.submission import JobLayout, Submission, last_submission
from launch.slurm.supervise.node_check import check_nodes
from launch.slurm.supervise.outcome import Circumstances, outcome_of
from launch.slurm.supervise.restart_policy import (
    Avoid,
    Cancel,
    Decision,
    Done,
    GiveUp,
    Requeue,
    Restart,
    RestartLimits,
    bad_nodes,
    decide,
)
from launch.slurm.supervise.srun import JobStep, rank_environment, srun_command
from launch.slurm.supervise.srun_messages import TaskFailure, task_failures
from pipeline.runs.find import CANCELLED, saved_step
from pipeline.system.command import command_line
from pipeline.system.exit_codes import FAILURE
from pipeline.system.output import lasting_output
from pipeline.system.patience import FULL, patiently
from pipeline.system.signals import STOPS

POLL_SECONDS = 0.2
LOOK_SECONDS = 10.0
"""How often to check whether all ranks have started, and whether a node was lost."""
LATE_SECONDS = 600.0
"""How long ranks wait for one that hangs before it can report anything."""
START_SECONDS = 60.0
"""How long srun may fail to start any rank, for example just after a controller restart."""
EARLY_SECONDS = 90.0
"""SLURM may send the notice of the time limit up to a minute early."""


class RunFailed(RuntimeError):  # noqa: N818 - the user reads only its message
    """The run is given up; gives the reason, and the traceback of the rank that failed first."""


def supervise(run_dir: str) -> str:
    """Train the run in `run_dir` in this job; return the outcome in words.

    If the run is given up, or this process fails, the last line of the job's log is a sentence
    about it, and the process ends with exit code 1.
    """
    with lasting_output():
        try:
            job = CurrentJob.mine()
            with noting_stops() as stops:
                return carry_out(decide_here(Path(run_dir), job, stops), job)
        except RunFailed as failure:
            reason, _, report = str(failure).partition("\n")
            say(report)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log ends with a sentence
            traceback.print_exc()
            reason = f"the supervisor failed with {type(error).__name__}: {error}"
        say(f"the run is given up: {reason}; to resume it: {resume_command(run_dir)}")
    raise SystemExit(FAILURE)  # after an exception, submitit would print a long traceback


def decide_here(run_dir: Path, job: CurrentJob, stops: Sequence[signal.Signals]) -> Decision:
    """Return the decision of `run_attempts`; leave this node if it cannot reach the files."""
    try:
        return run_attempts(run_dir, job, stops)
    except OSError as error:
        if error.errno in FULL:  # as it would be on any node
            raise
        traceback.print_exc()
        reason = f"the supervisor failed with {type(error).__name__}: {error}"
        return Avoid(reason, os.environ["SLURMD_NODENAME"])


def run_attempts(run_dir: Path, job: CurrentJob, stops: Sequence[signal.Signals]) -> Decision:
    """Start attempts on the nodes of `job` as long as that helps; return what to do then.

    It also ends after an attempt during which a signal was added to `stops`.
    """
    submission = last_submission(run_dir)
    assert submission is not None, "a queued run has a submission"
    wanted, start = submission.layout.nodes, f"{job.id}.{job.restart}"
    for number in count(next_attempt(submission.run_dir, start)):
        history = read_history(submission.folder)
        bad = bad_nodes(history, start)
        nodes = usable_nodes(job, without=bad)
        if stops or len(nodes) < wanted:
            why = "stopped" if stops else "too few nodes are left"
            return Requeue(why, tuple(bad))
        attempt = Attempt(submission.run_dir, f"{start}.{number}")
        taken_by, names = "", [node.name for node in nodes]
        outcomes = find_bad_nodes(submission, attempt, names, stops)
        if (submission.run_dir / CANCELLED).exists():  # and its signal may have ended the check
            return Cancel()
        if not outcomes and stops:
            return Requeue("stopped", tuple(bad))
        if not outcomes:
            chosen = choose_nodes(nodes, history, wanted)
            outcomes = [run_attempt(submission, job, attempt, chosen, stops)]
            taken_by = attempt.successor()
        for outcome in outcomes:
            append_outcome(submission.folder, outcome)
            error = f": {outcome.error}" if outcome.error else ""
            say(f"attempt {attempt.token} {outcome.kind} at checkpoint {outcome.step}{error}")
        decision = decide(read_history(submission.folder), limits_of(submission))
        if taken_by and not isinstance(decision, Done | Cancel):
            return GiveUp(f"attempt {taken_by} has taken over the run")
        if stops or not isinstance(decision, Restart):
            return decision
    raise AssertionError("the count is endless")


def find_bad_nodes(
    submission: Submission, attempt: Attempt, names: list[str], stops: Sequence[signal.Signals]
) -> list[Outcome]:
    """Check the nodes `names`; return an outcome of `attempt` for each that cannot be used."""
    step = patiently(lambda: saved_step(submission.run_dir))
    verdict = check_nodes(submission, attempt, names, trained=step > 0, stops=stops)
    for warning in verdict.warnings:
        say(f"warning: {warning}")
    return [
        Outcome(attempt.token, "bad node", step, error=f"{node}: {fault}", node=node)
        for node, fault in verdict.faults.items()
    ]


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
    try:
        code, failures = retry(lambda: run_step(submission, job, attempt, names), START_SECONDS)
    except SlurmError as error:  # a node may just have been lost
        code, failures = FAILURE, [TaskFailure("", None, str(error))]
    notice = submission.slurm.stop_notice_seconds + EARLY_SECONDS
    circumstances = Circumstances(
        code=code,
        seconds=time.monotonic() - started,
        node_lost=any(node.is_lost for node in retry(lambda: read_nodes(names))),
        asked=bool(stops),
        at_limit=job.seconds_left() < notice,
        failures=failures,
    )
    world_size = submission.layout.world_size
    return patiently(lambda: outcome_of(attempt, world_size, circumstances))


def run_step(
    submission: Submission, job: CurrentJob, attempt: Attempt, names: list[str]
) -> tuple[int, list[TaskFailure]]:
    """Start all ranks and wait for them to end; return the highest exit code, and who failed.

    Raises `SlurmError` if none of them started.
    """
    job.record()  # waits for the controller
    command = srun_command(submission, attempt, names)
    with JobStep(command, rank_environment(submission, attempt)) as step:
        late = await_end(step, attempt, submission.layout)
        code = step.poll()
    assert code is not None, "it was waited for"
    if code and not any(attempt.logs.iterdir()):
        raise SlurmError(
            f"srun could not start the ranks, exit code {code}; its messages are above"
        )
    return code, [*late, *task_failures(step.messages)]


def await_end(step: JobStep, attempt: Attempt, layout: JobLayout) -> list[TaskFailure]:
    """Wait for a step to end; return the ranks for which the others waited too long.

    It is ended early for those, or if a task was not launched, or if a node is lost and there are
    spare nodes.
    """
    names, looked, late_since = list(attempt.addresses()), time.monotonic(), None
    while step.poll() is None:
        time.sleep(POLL_SECONDS)
        if not all(each.launched for each in task_failures(step.messages)):
            step.end()  # the other tasks would wait for it
        if time.monotonic() - looked < LOOK_SECONDS:
            continue
        looked = time.monotonic()
        late = attempt.late_ranks(layout.world_size)
        late_since = (late_since or looked) if late else None
        if late_since is not None and looked - late_since > LATE_SECONDS:
            step.end()
            why = f"it did not load its program within {LATE_SECONDS / 60:.0f} min"
            at = {rank: names[rank // layout.ranks_per_node] for rank in late}
            return [TaskFailure(at[rank], rank, why, launched=False) for rank in late]
        if layout.spare_nodes:
            with suppress(SlurmError):  # the controller may be down for a while
                if any(node.is_lost for node in read_nodes(names)):
                    step.end()
    return []


def usable_nodes(job: CurrentJob, *, without: Sequence[str]) -> list[JobNode]:
    """Return the nodes of the job that SLURM can use, except `without`."""
    nodes = retry(lambda: read_nodes(job.nodes))
    return [node for node in nodes if node.is_usable and node.name not in without]


def choose_nodes(
    nodes: Sequence[JobNode], history: Sequence[Outcome], wanted: int
) -> list[JobNode]:
    """Return the `wanted` nodes on which the fewest attempts failed, in their order."""
    failures = Counter(outcome.node for outcome in history)
    chosen = sorted(nodes, key=lambda node: failures[node.name])[:wanted]
    return [node for node in nodes if node in chosen]


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
        case Restart(reason):  # a stop signal turns it into a requeue
            job.requeue()
            return f"requeued: {reason}"
        case Requeue(reason, without):
            job.requeue(without)
            return f"requeued: {reason}"
        case Avoid(reason, node):
            if not job.can_avoid([node]):
                raise RunFailed(reason)
            job.requeue([node])
            return f"requeued without {node}: {reason}"
        case GiveUp(reason):
            raise RunFailed(reason)


def resume_command(run_dir: str) -> str:
    """Return the command that resumes the run, for a shell."""
    return command_line("launch/resume.py", run_dir)


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
