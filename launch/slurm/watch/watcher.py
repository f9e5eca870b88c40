"""Looks after the jobs of runs from outside, where no job can look after itself."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch.overview.details import all_outcomes
from launch.slurm.api.cli import SlurmError, host_names, show, slurm
from launch.slurm.api.jobs import QueuedJob, read_jobs
from launch.slurm.records.attempt import LATEST, LOGS, Attempt
from launch.slurm.records.submission import Submission, last_submission
from launch.slurm.watch.ledger import Memory
from launch.slurm.watch.rules import (
    Failure,
    Precaution,
    Seen,
    WatchLimits,
    failing_nodes,
    precautions,
)
from pipeline.runs.find import CANCELLED, find_runs
from pipeline.runs.folder import RESULT
from pipeline.tracking.jsonl import METRICS


@dataclass
class Watcher:
    """One who looks after the runs in some folders, again and again."""

    places: Sequence[Path]
    limits: WatchLimits
    memory: Memory
    say: Callable[[str], None]
    _complaints: set[str] = field(default_factory=set[str])
    """What could not be done in the last round, and was told."""

    def look(self) -> bool:
        """Look once, and do what is to be done; return whether SLURM and the disk have answered."""
        complaints = self._complaints
        self._complaints = set()
        try:
            self._look(complaints)
        except (OSError, ValueError) as error:  # of which SlurmError is one
            self._complain(str(error), complaints)
            return False
        return True

    def _look(self, complaints: set[str]) -> None:
        found: dict[Path, Submission] = {}
        failures: list[Failure] = []
        for run_dir in find_runs(self.places):
            try:
                submission = last_submission(run_dir)
                failures += failures_of(run_dir)
            except (OSError, ValueError) as error:
                self._complain(f"{run_dir} cannot be read: {error}", complaints)
                continue
            if submission is not None and submission.job_id:
                found[run_dir] = submission
        jobs = read_jobs(each.job_id for each in found.values() if wants_to_go_on(each))
        failing = failing_nodes(failures, self.limits, time.time())
        for run_dir, submission in found.items():
            if job := jobs.get(submission.job_id):
                self._look_after(run_dir, job, failing, complaints)

    def _look_after(
        self, run_dir: Path, job: QueuedJob, failing: Sequence[str], complaints: set[str]
    ) -> None:
        try:
            seen = see(run_dir, job)
        except SlurmError as error:
            if "Invalid job id" in str(error):  # it has ended meanwhile
                return
            raise
        done = self.memory.keys()
        for each in precautions(seen, failing, done, self.limits, time.time()):
            self._do(each, complaints)

    def _do(self, wanted: Precaution, complaints: set[str]) -> None:
        if wanted.command:
            try:
                slurm(*wanted.command)
            except SlurmError as error:  # tried again in the next round
                self._complain(f"{wanted.sentence}; but {error}", complaints)
                return
        self.memory.add(wanted.key)
        self.say(wanted.sentence)

    def _complain(self, complaint: str, before: set[str]) -> None:
        """Tell what does not work, but not in every round anew."""
        self._complaints.add(complaint)
        if complaint not in before:
            self.say(complaint)


def wants_to_go_on(submission: Submission) -> bool:
    """Whether a run is neither finished nor cancelled."""
    run_dir = submission.run_dir
    return not (run_dir / RESULT).exists() and not (run_dir / CANCELLED).exists()


def see(run_dir: Path, job: QueuedJob) -> Seen:
    """Return what there is to know about a run whose job waits or runs."""
    active_at = last_activity(run_dir)
    if job.state != "PENDING":
        return Seen(run_dir, job, active_at)
    record = show("job", job.id)[0]
    return Seen(
        run_dir,
        job,
        active_at,
        restarts=int(record.get("Restarts", "0")),
        excluded=frozenset(host_names(_list(record, "ExcNodeList"))),
        nodes_to_choose_from=_partition_nodes(record),
    )


def failures_of(run_dir: Path) -> list[Failure]:
    """Return on which nodes, as SLURM calls them, the attempts at a run have failed."""
    found: list[Failure] = []
    for outcome in all_outcomes(run_dir):
        attempt = Attempt(run_dir, outcome.token)
        if outcome.node and attempt.folder.exists():
            node = _name_in_slurm(outcome.node, attempt.addresses())
            found += [Failure(node, attempt.folder.stat().st_mtime)] if node else []
    return found


def last_activity(run_dir: Path) -> float:
    """Return when a run last wrote anything, in seconds as `time.time` gives them; 0 if never."""
    return max(_times_of_writing(run_dir), default=0.0)


def _times_of_writing(run_dir: Path) -> Iterator[float]:
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


def _name_in_slurm(host: str, addresses: Mapping[str, str]) -> str | None:
    """Return which node of an attempt `host` is: hosts may call themselves by longer names."""
    return next((name for name in (host, host.partition(".")[0]) if name in addresses), None)


def _partition_nodes(record: Mapping[str, str]) -> int:
    names = record.get("Partition", "").split(",")
    return max(int(show("partition", name)[0].get("TotalNodes", "0")) for name in names)


def _list(record: Mapping[str, str], key: str) -> str:
    value = record.get(key, "")
    return "" if value == "(null)" else value
