"""Whether SLURM accepted a job as requested: a site's plugins may change it."""

import re
from contextlib import suppress

from launch.slurm.api.cli import SlurmError, show
from launch.slurm.api.nodes import gpus_asked
from launch.slurm.records.submission import Submission
from pipeline.config.schema.slurm import minutes_of

NUMBER = re.compile(r"[0-9]+")


def surprises(submission: Submission) -> list[str]:
    """Return a warning if SLURM's record of the job differs from the request.

    The list is empty if SLURM does not answer: the job is queued all the same.
    """
    with suppress(SlurmError):
        records = show("job", submission.job_id)
        if found := differences(submission, records[0]) if records else []:
            return [
                f"SLURM has changed job {submission.job_id}: {', '.join(found)}; a plugin of this"
                " site may do that, ask its administrators"
            ]
    return []


def differences(submission: Submission, record: dict[str, str]) -> list[str]:
    """Return where a job's record of `scontrol show job` differs from what was asked."""
    slurm, layout = submission.slurm, submission.layout
    nodes = str(layout.nodes + layout.spare_nodes)
    asked = [
        ("Partition", slurm.partition, _one_of(record.get("Partition"), slurm.partition)),
        ("Account", slurm.account, record.get("Account")),
        ("QOS", slurm.qos, record.get("QOS")),
        ("Reservation", slurm.reservation, record.get("Reservation")),
        ("NumNodes", nodes, _first_number(record.get("NumNodes"))),
        ("CPUs/Task", str(layout.cpus_per_rank), record.get("CPUs/Task")),
        ("Requeue", "1", record.get("Requeue")),
    ]
    _, gpus = gpus_asked(record.get("TresPerNode", ""))
    if layout.gpus_per_node and gpus:
        asked.append(("GPUs per node", str(layout.gpus_per_node), str(gpus)))
    different = [
        f"{name} is {found} instead of {wanted}"
        for name, wanted, found in asked
        if wanted is not None and found not in (None, "(null)", "N/A", wanted)
    ]
    limit = _minutes(record.get("TimeLimit", ""))
    if slurm.time_limit_minutes not in (None, limit):
        found = record.get("TimeLimit")
        different.append(f"TimeLimit is {found} instead of {slurm.time_limit}")
    return different


def _one_of(partition: str | None, asked: str | None) -> str | None:
    """Return the partition; all that were asked if it is one of them, as for a job that runs."""
    return asked if asked and partition in asked.split(",") else partition


def _first_number(text: str | None) -> str | None:
    """Return the least of a range such as 2-2."""
    match = NUMBER.match(text or "")
    return match[0] if match else None


def _minutes(time_limit: str) -> int | None:
    with suppress(ValueError):
        return minutes_of(time_limit)
    return None
