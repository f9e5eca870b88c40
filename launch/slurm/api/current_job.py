"""The job that this process runs in."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from launch.slurm.api.cli import SlurmError, host_names, retry, show, slurm
from launch.slurm.api.jobs import unix_time
from launch.slurm.api.partitions import fitting_nodes
from pipeline.config.schema.slurm import minutes_of
from pipeline.system.output import print_warning

CHANGE_SECONDS = 20.0
"""How long to try to change a job that was just requeued; SLURM kills its processes meanwhile."""


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

    def requeue(self, without: Sequence[str] = ()) -> None:
        """Give the nodes back and queue again, unless the user already cancelled or requeued it.

        It will not get the nodes `without` again, if enough others are left.
        """
        if self.record()["JobState"] != "RUNNING":
            return
        excluded = self._excluded(without) if without and self.can_avoid(without) else []
        retry(lambda: slurm("scontrol", "requeue", self.id))
        if excluded:  # only pending jobs can be changed, and SLURM ends this process soon
            nodes = f"ExcNodeList={','.join(excluded)}"
            try:
                update = ("scontrol", "update", f"jobid={self.id}", nodes)
                retry(lambda: slurm(*update), CHANGE_SECONDS)
            except SlurmError as error:  # a site may forbid it
                print_warning(f"the job is requeued, and may get the same nodes again: {error}")

    def can_avoid(self, nodes: Sequence[str]) -> bool:
        """Whether the job's partitions have enough nodes without `nodes`."""
        record = self.record()
        required, excluded = _listed(record.get("ReqNodeList", "")), self._excluded(nodes)
        left = [names - {*excluded} for names in retry(lambda: fitting_nodes(record))]
        enough = max(map(len, left), default=0) >= len(self.nodes)
        return enough and not set(required) & set(nodes)

    def _excluded(self, nodes: Sequence[str]) -> list[str]:
        """Return the nodes that the job excludes, and `nodes`."""
        return sorted({*_listed(self.record().get("ExcNodeList", "")), *nodes})

    def cancel(self) -> None:
        """End the job for good."""
        retry(lambda: slurm("scancel", self.id))


def _listed(nodes: str) -> list[str]:
    return [] if nodes in ("", "(null)") else retry(lambda: host_names(nodes))
