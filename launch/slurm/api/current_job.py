"""The job that this process runs in."""

import os
import time
from dataclasses import dataclass

from launch.slurm.api.cli import host_names, retry, show, slurm
from launch.slurm.api.jobs import unix_time
from pipeline.config.schema.slurm import minutes_of


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job of this process; its methods wait while SLURM's controller is down."""

    id: str
    restart: int
    """How often it was requeued."""
    nodes: list[str]

    @classmethod
    def mine(cls) -> "CurrentJob":
        """Return the job of this process.

        In a job array, SLURM_JOB_ID may be the number of the whole array, and scancel would end
        all of its elements.
        """
        array, index = (os.environ.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
        return cls(
            f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"],
            int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            retry(lambda: host_names(os.environ["SLURM_JOB_NODELIST"])),
        )

    def record(self) -> dict[str, str]:
        """Return the fields of `scontrol show job`."""
        return retry(lambda: show("job", self.id))[0]

    def seconds_left(self) -> float:
        """Return the seconds until the job's time limit, which an administrator may have changed.

        EndTime is not used: for a preempted job it is the end of the grace period.
        """
        record = self.record()
        started = unix_time(record.get("StartTime", ""))
        try:
            minutes = minutes_of(record.get("TimeLimit", ""))
        except ValueError:  # UNLIMITED
            return float("inf")
        return float("inf") if started is None else started + 60 * minutes - time.time()

    def requeue(self) -> None:
        """Give the nodes back and queue again, unless the user already cancelled or requeued it."""
        if self.record()["JobState"] == "RUNNING":
            retry(lambda: slurm("scontrol", "requeue", self.id))

    def cancel(self) -> None:
        """End the job for good."""
        retry(lambda: slurm("scancel", self.id))
