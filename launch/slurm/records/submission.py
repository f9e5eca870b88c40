"""A submitted run: the resources requested from SLURM, the code, and the resulting job.

Its files are in RUN_DIR/submissions/NUMBER. A run submitted again, with other nodes or other code,
has several submissions; the last one counts.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from launch.slurm.api.cli import SlurmError, cluster_name
from launch.slurm.api.jobs import QueuedJob, read_jobs, read_users_jobs
from pipeline.config.schema import Slurm
from pipeline.system.command import command_line
from pipeline.system.durable import write_whole

SUBMISSIONS = "submissions"
RECORD = "submission.json"
CODE = "code"
CLOCK_SECONDS = 10.0
"""How far the clocks of this machine and of SLURM's controller may be apart."""


@dataclass(frozen=True, slots=True)
class JobLayout:
    """How many processes run on how many nodes."""

    nodes: int
    """Without spare nodes."""
    spare_nodes: int
    ranks_per_node: int
    cpus_per_rank: int
    gpus_per_node: int

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission of a run."""

    run_dir: Path
    number: int
    layout: JobLayout
    slurm: Slurm
    environment: dict[str, str]
    """Variables for each rank: `env` in the configuration."""
    directory: Path
    """Where it was submitted from; relative paths in the configuration start here."""
    python: str
    submitted_at: float
    """Unix time in seconds."""
    job_id: str = ""
    """Empty until SLURM has accepted the job."""
    cluster: str = ""
    """The name of the job's cluster; empty in records of older versions."""
    shared: Path | None = None
    """The folder of the code and submitit's files if points of a sweep share one."""

    @property
    def gpus(self) -> str:
        """The GPUs of each node as SLURM's options take them: 4, or a100:4."""
        kind, count = self.slurm.gpu_type, self.layout.gpus_per_node
        return f"{kind}:{count}" if kind else str(count)

    @property
    def folder(self) -> Path:
        return self.run_dir / SUBMISSIONS / f"{self.number:03}"

    @property
    def home(self) -> Path:
        """The folder of the code and submitit's files."""
        return self.shared or self.folder

    @property
    def code(self) -> Path:
        return self.home / CODE

    def save(self) -> None:
        """Write the record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = TypeAdapter(Submission).dump_json(self, indent=2)
        write_whole(self.folder / RECORD, text + b"\n")


def last_submission(run_dir: Path) -> Submission | None:
    """Return the last submission of a run, or None if it was never queued."""
    found = sorted((run_dir / SUBMISSIONS).glob(f"*/{RECORD}"))
    return TypeAdapter(Submission).validate_json(found[-1].read_bytes()) if found else None


def next_number(run_dir: Path) -> int:
    """Return the number of a run's next submission."""
    folders = (run_dir / SUBMISSIONS).glob("[0-9]*")
    return max((int(folder.name) for folder in folders), default=0) + 1


def job_of(run_dir: Path) -> QueuedJob | None:
    """Return the pending or running job of a run on this cluster, or None.

    Raises `SlurmError` if SLURM does not answer.
    """
    submission = last_submission(run_dir)
    if submission is None:
        return None
    if submission.job_id:
        return own_job(submission, read_jobs([submission.job_id]))
    return _unrecorded_job(submission)


def own_job(submission: Submission, jobs: Mapping[str, QueuedJob]) -> QueuedJob | None:
    """Return the submission's job among `jobs`; another job may have its number.

    That happens on another cluster, or after a cluster was set up again. The script's path tells
    them apart, also after a requeue, which changes the time of submission.
    """
    job = jobs.get(submission.job_id)
    if job is None:
        return None
    if job.script:
        return job if _is_script_of(submission, job) else None
    return job if _is_as_old(submission, job) else None


def _unrecorded_job(submission: Submission) -> QueuedJob | None:
    """Return the job of a submission that was interrupted before it could record the number."""
    if submission.shared:  # the script of a sweep does not tell its points apart
        return None
    jobs = read_users_jobs().values()
    return next((job for job in jobs if _is_script_of(submission, job)), None)


def _is_script_of(submission: Submission, job: QueuedJob) -> bool:
    return Path(job.script).is_relative_to(submission.home)


def _is_as_old(submission: Submission, job: QueuedJob) -> bool:
    """Whether a job was submitted when the submission was written."""
    written = (submission.folder / RECORD).stat().st_mtime
    earliest, latest = submission.submitted_at - CLOCK_SECONDS, written + CLOCK_SECONDS
    return job.submitted_at is not None and earliest <= job.submitted_at <= latest


def other_cluster(submission: Submission) -> str:
    """Return the cluster of the job if SLURM's commands ask another one; empty if unknown."""
    if submission.cluster:
        with suppress(SlurmError):
            here = cluster_name()
            return submission.cluster if here not in ("", submission.cluster) else ""
    return ""


def expect_no_job(run_dir: Path) -> None:
    """Raise `ValueError` if a job of the run is pending or running."""
    if job := job_of(run_dir):
        raise ValueError(
            f"{run_dir} already has job {job.id} ({job.state}); see"
            f" {command_line('launch/status.py', run_dir)}, or end it with"
            f" {command_line('launch/cancel.py', run_dir)}"
            ". To start another run with the same settings, use launch/submit.py --new"
        )
