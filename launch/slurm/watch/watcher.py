"""Checks the jobs of runs and takes the actions that are due."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from launch.slurm.api.cli import SlurmError, host_names, show, slurm
from launch.slurm.api.jobs import QueuedJob, read_jobs
from launch.slurm.api.partitions import fitting_nodes
from launch.slurm.records.attempt import LATEST, LOGS, Attempt
from launch.slurm.records.history import all_outcomes, last_outcome
from launch.slurm.records.job_log import job_log, last_error, was_ended_by_slurm
from launch.slurm.records.submission import (
    Submission,
    last_submission,
    other_cluster,
    own_job,
)
from launch.slurm.watch.ledger import Ledger
from launch.slurm.watch.rules import (
    DAY_SECONDS,
    Action,
    LostRun,
    NodeFailure,
    WatchedRun,
    WatchLimits,
    due_actions,
    failing_nodes,
    recovery,
)
from pipeline.runs.find import CANCELLED, find_runs, saved_step
from pipeline.runs.folder import RESULT
from pipeline.runs.holder import holder
from pipeline.tracking.jsonl import METRICS

COMMAND_SECONDS = 600.0
"""launch/resume.py imports torch, and checks the run as at its first submission."""


@dataclass
class Watcher:
    """Looks after the runs in some folders, round by round."""

    places: Sequence[Path]
    limits: WatchLimits
    ledger: Ledger
    say: Callable[[str], None]
    _troubles: set[str] = field(default_factory=set[str])
    """Failures of the last round, which were reported."""

    def check(self) -> bool:
        """Check all runs once, and act; return whether SLURM and the disk answered."""
        before = self._troubles
        self._troubles = set()
        try:
            self._check(before)
        except (OSError, ValueError) as error:  # SlurmError is a ValueError
            self._report_trouble(str(error), before)
            return False
        return True

    def _check(self, before: set[str]) -> None:
        found: dict[Path, Submission] = {}
        failures: list[NodeFailure] = []
        for run_dir in find_runs(self.places):
            try:
                submission = last_submission(run_dir)
                failures += failures_of(run_dir)
            except (OSError, ValueError) as error:
                self._report_trouble(f"cannot read {run_dir}: {error}", before)
                continue
            if submission is not None and submission.job_id:
                found[run_dir] = submission
        jobs = read_jobs(each.job_id for each in found.values() if is_unfinished(each.run_dir))
        failing = failing_nodes(failures, self.limits, time.time())
        for run_dir, submission in found.items():
            if job := own_job(submission, jobs):
                self._look_after(run_dir, job, failing, before)
            elif lost := lost_run(submission):
                self._recover(lost, before)

    def _recover(self, lost: LostRun, before: set[str]) -> None:
        action = recovery(lost, self.ledger.keys())
        if action is not None and was_cancelled(lost.run_dir, lost.job_id):
            self.ledger.add(action.key)  # SLURM need not be asked again
        elif action is not None:
            self._take(action, before)

    def _look_after(
        self, run_dir: Path, job: QueuedJob, failing: Sequence[str], before: set[str]
    ) -> None:
        try:
            run = inspect(run_dir, job)
        except SlurmError as error:
            if "Invalid job id" in str(error):  # the job has just ended
                return
            raise
        for action in due_actions(run, failing, self.ledger.keys(), self.limits, time.time()):
            self._take(action, before)

    def _take(self, action: Action, before: set[str]) -> None:
        if action.command:
            try:
                slurm(*action.command, seconds=COMMAND_SECONDS)
            except SlurmError as error:  # tried again in the next round
                self._report_trouble(f"{action.message}; but {error}", before)
                return
        self.ledger.add(action.key)
        self.say(action.message)

    def _report_trouble(self, trouble: str, before: set[str]) -> None:
        """Report failures that were not reported in the last round."""
        self._troubles.add(trouble)
        if trouble not in before:
            self.say(trouble)


def is_unfinished(run_dir: Path) -> bool:
    """Whether a run is neither finished nor cancelled."""
    return not (run_dir / RESULT).exists() and not (run_dir / CANCELLED).exists()


def lost_run(submission: Submission) -> LostRun | None:
    """Return the run of a submission without a job if its job started and left no outcome.

    A run that trains on this machine, or was active more than a day ago, is left alone.
    """
    run_dir, log = submission.run_dir, job_log(submission.run_dir, submission.job_id)
    if (
        not is_unfinished(run_dir)
        or not log.exists()
        or time.time() - last_activity(run_dir) > DAY_SECONDS
        or last_outcome(submission) is not None
        or holder(run_dir) is not None
        or other_cluster(submission)
    ):
        return None
    return LostRun(run_dir, submission.job_id, saved_step(run_dir), last_error(log))


def was_cancelled(run_dir: Path, job_id: str) -> bool:
    """Whether somebody ended a job with scancel; SLURM itself forgets that within minutes."""
    with suppress(SlurmError):
        for record in show("job", job_id):
            if record.get("JobState") == "CANCELLED":
                return True
    return was_ended_by_slurm(job_log(run_dir, job_id))


def inspect(run_dir: Path, job: QueuedJob) -> WatchedRun:
    """Return the known facts about a run with a pending or running job."""
    active_at = last_activity(run_dir)
    if job.state != "PENDING":
        return WatchedRun(run_dir, job, active_at)
    record = show("job", job.id)[0]
    excluded = record.get("ExcNodeList", "")
    return WatchedRun(
        run_dir,
        job,
        active_at,
        restarts=int(record.get("Restarts", "0")),
        excluded=frozenset(host_names("" if excluded == "(null)" else excluded)),
        fitting_nodes=max(map(len, fitting_nodes(record)), default=0),
    )


def failures_of(run_dir: Path) -> list[NodeFailure]:
    """Return the failed attempts at a run whose node is known, with SLURM's name for it."""
    found: list[NodeFailure] = []
    for outcome in all_outcomes(run_dir):
        attempt = Attempt(run_dir, outcome.token)
        if outcome.node and attempt.folder.exists():
            node = _slurm_name(outcome.node, attempt.addresses())
            found += [NodeFailure(node, attempt.folder.stat().st_mtime)] if node else []
    return found


def last_activity(run_dir: Path) -> float:
    """Return the Unix time in seconds at which a run last wrote something; 0 if never."""
    return max(_modification_times(run_dir), default=0.0)


def _modification_times(run_dir: Path) -> Iterator[float]:
    logs = run_dir / LOGS
    for path in (
        *(run_dir / METRICS, run_dir / "checkpoints"),
        *logs.glob("*.log"),
        *(logs / LATEST).glob("*.log"),
    ):
        try:
            yield path.stat().st_mtime
        except OSError:
            continue


def _slurm_name(host: str, addresses: Mapping[str, str]) -> str | None:
    """Return the node of an attempt that `host` is: its host name may be longer."""
    return next((name for name in (host, host.partition(".")[0]) if name in addresses), None)
