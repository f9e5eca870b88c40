"""A sweep on a cluster: one job array, each element of which trains one point."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from submitit import SlurmExecutor

from launch.slurm.api.cli import show_config
from launch.slurm.records.attempt import LOGS
from launch.slurm.records.submission import SUBMISSIONS, Submission, next_number
from launch.slurm.submit.code_copy import copy_code
from launch.slurm.submit.request import JobRequest, doubts_of
from launch.slurm.submit.sbatch import announce, calling_sbatch, executor_for, prepare, script_of
from launch.slurm.supervise.supervisor import supervise
from launch.sweep.points import Sweep, SweepPoint
from pipeline.runs.folder import hold_run_folder
from pipeline.system.command import command_line

ARRAY_LOG = "job-%A_%a.log"


@dataclass(frozen=True)
class SweepRequest:
    """The unfinished points of a sweep, which fit the cluster."""

    sweep: Sweep
    requests: list[JobRequest]
    """One for each point; at least one."""
    parallel: int
    """At most this many run at a time."""

    @classmethod
    def check(cls, sweep: Sweep, *, nodes: int, parallel: int | None) -> "SweepRequest":
        """Return the request for the unfinished points, each on `nodes` nodes.

        Raises `ValueError` with the name of the first wrong point.
        """
        points = sweep.unfinished
        expect_array(len(points))
        requests: list[JobRequest] = []
        for point in points:
            requests.append(_check(point, nodes, requests[-1] if requests else None))
            _expect_alike(points[0], requests[0], point, requests[-1])
        return cls(sweep, requests, parallel or len(points))

    @property
    def warnings(self) -> list[str]:
        return list(dict.fromkeys(text for each in self.requests for text in doubts_of(each)))

    def lines(self) -> list[tuple[str, str]]:
        """Return the summary to print before queueing, as (name, value)."""
        names = [request.config.run_dir.name for request in self.requests if request.config.run_dir]
        return [
            *self.requests[0].lines(),
            ("sweep", str(self.sweep.folder)),
            ("points", f"{len(names)}, at most {self.parallel} at a time: {', '.join(names)}"),
        ]

    def script(self) -> str:
        """Return the batch script that would be submitted; writes nothing."""
        if len(self.requests) == 1:
            return self.requests[0].script()
        return script_of(self._executor(self._submissions()), elements=len(self.requests))

    def queue(self) -> list[Submission]:
        """Make the folders and queue all points; return the submissions."""
        self.sweep.save()
        if len(self.requests) == 1:  # an array of one is a job
            return [self.requests[0].queue()]
        with ExitStack() as stack:
            for request in self.requests:
                stack.enter_context(hold_run_folder(request.config))
            return self._queue()

    def _queue(self) -> list[Submission]:
        submissions = self._submissions()
        copy_code(submissions[0].home)
        (self.sweep.folder / LOGS).mkdir(exist_ok=True)
        for submission in submissions:
            announce(submission)
        with calling_sbatch():
            jobs = self._executor(submissions).map_array(
                supervise, [str(submission.run_dir) for submission in submissions]
            )
        queued = [
            replace(submission, job_id=job.job_id)
            for submission, job in zip(submissions, jobs, strict=True)
        ]
        for submission in queued:
            submission.save()
            self._link_log(submission)
        return queued

    def _submissions(self) -> list[Submission]:
        home = self.sweep.folder / SUBMISSIONS / f"{next_number(self.sweep.folder):03}"
        prepared: list[Submission] = []
        for request in self.requests:
            assert request.config.run_dir is not None, "a point has a folder"
            submission = prepare(request.config, request.config.run_dir, request.layout)
            prepared.append(replace(submission, shared=home))
        return prepared

    def _executor(self, submissions: Sequence[Submission]) -> SlurmExecutor:
        log = self.sweep.folder / LOGS / ARRAY_LOG
        executor = executor_for(submissions[0], self.sweep.folder.name, log)
        executor.update_parameters(array_parallelism=self.parallel)
        return executor

    def _link_log(self, submission: Submission) -> None:
        """Link the job's log into the run folder; SLURM can only put numbers into its path."""
        name = f"job-{submission.job_id}.log"
        link = submission.run_dir / LOGS / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("../..") / LOGS / name)


def expect_array(points: int) -> None:
    """Raise `ValueError` if the cluster does not allow a job array with this many elements."""
    limit = int(show_config().get("MaxArraySize", "0"))
    if points > max(1, limit):
        raise ValueError(
            f"the sweep has {points:,} points to train, but a job array of this cluster has at most"
            f" {limit:,} (MaxArraySize); sweep fewer at once"
        )


def describe_sweep(sweep: Sweep, submissions: Sequence[Submission]) -> str:
    """Return what to print once a sweep is queued."""
    first = submissions[0].job_id
    job, last = first.partition("_")[0], submissions[-1].job_id
    one = submissions[0].run_dir
    lines = [
        ("jobs", first if first == last else f"{first} to {last}"),
        ("sweep", str(sweep.folder)),
        ("results", command_line("launch/status.py", "--sweep", sweep.folder)),
        ("runs", command_line("launch/status.py", sweep.folder)),
        ("cancel one", command_line("launch/cancel.py", one)),
        ("cancel all", f"scancel {job}"),
    ]
    return "\n".join(f"{name + ':':12}{value}" for name, value in lines)


def _check(point: SweepPoint, nodes: int, like: JobRequest | None) -> JobRequest:
    try:
        return JobRequest.check(point.config, nodes=nodes, like=like)
    except ValueError as error:
        raise ValueError(f"{point.name}: {error}") from error


def _expect_alike(
    first: SweepPoint, its: JobRequest, point: SweepPoint, request: JobRequest
) -> None:
    """Raise `ValueError` if two points cannot be elements of one job array."""
    if (its.layout, its.config.slurm) != (request.layout, request.config.slurm):
        raise ValueError(
            f"{point.name} needs another kind of job than {first.name}, but a sweep is one job"
            " array; do not sweep settings of slurm, or submit one sweep for each"
        )
