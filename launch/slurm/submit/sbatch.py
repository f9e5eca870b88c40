"""Putting a run into SLURM's queue, through submitit."""

import shlex
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor

from launch.slurm.api.cli import SlurmError, cluster_name
from launch.slurm.api.environment import only_for_commands
from launch.slurm.records.submission import JobLayout, Submission, expect_no_job, next_number
from launch.slurm.submit.code_copy import copy_code
from launch.slurm.supervise.batch import lines_after, lines_before
from launch.slurm.supervise.supervisor import supervise
from pipeline.config.schema import Config
from pipeline.runs.find import CANCELLED

BATCH_LOG = "logs/job-%j.log"


def queue(config: Config, run_dir: Path, layout: JobLayout) -> Submission:
    """Queue the run in `run_dir`; return the submission with its job id.

    Raises `ValueError` if the run already has a job, or if SLURM refuses it.
    """
    expect_no_job(run_dir)
    submission = prepare(config, run_dir, layout)
    copy_code(submission.home)
    announce(submission)
    with calling_sbatch():
        job = executor_for(submission, config.title).submit(supervise, str(submission.run_dir))
    submission = replace(submission, job_id=job.job_id)
    submission.save()
    return submission


def announce(submission: Submission) -> None:
    """Prepare the run folder: the job may start before sbatch has returned its id."""
    (submission.run_dir / "logs").mkdir(exist_ok=True)
    (submission.run_dir / CANCELLED).unlink(missing_ok=True)
    submission.save()


def prepare(config: Config, run_dir: Path, layout: JobLayout) -> Submission:
    """Return the next submission of a run; writes nothing."""
    return Submission(
        run_dir=run_dir.resolve(),
        number=next_number(run_dir),
        layout=layout,
        slurm=config.slurm,
        environment=dict(config.env),
        directory=Path.cwd(),
        python=sys.executable,
        submitted_at=time.time(),
        cluster=cluster_name(),
    )


def script(submission: Submission, name: str) -> str:
    """Return the batch script of a job."""
    return script_of(executor_for(submission, name))


def script_of(executor: SlurmExecutor, *, elements: int = 1) -> str:
    """Return the batch script of a job, or of a job array of several elements."""
    if elements > 1:
        executor.parameters["map_count"] = elements
    command: str = executor._submitit_command_str  # pyright: ignore[reportPrivateUsage]
    return executor._make_submission_file_text(command, "dry-run")  # pyright: ignore[reportPrivateUsage]


def executor_for(submission: Submission, name: str, log: Path | None = None) -> SlurmExecutor:
    """Return submitit's executor, which runs the supervisor once, on the job's first node.

    Its output goes to `log`, in which SLURM fills in numbers; by default to the run folder.
    """
    python = f"{shlex.quote(submission.python)} -P"  # modules in the directory are not ours
    executor = SlurmExecutor(folder=submission.home / "submitit", python=python)
    executor.update_parameters(
        **parameters(submission, name, log or submission.run_dir / BATCH_LOG)
    )
    return executor


def parameters(submission: Submission, name: str, log: Path) -> dict[str, Any]:
    """Return submitit's parameters; options that only sbatch has are its additional ones."""
    slurm, layout = submission.slurm, submission.layout
    own: dict[str, Any] = {
        "job_name": name,
        "nodes": layout.nodes + layout.spare_nodes,
        "ntasks_per_node": layout.ranks_per_node,
        "cpus_per_task": layout.cpus_per_rank,
        "gpus_per_node": submission.gpus if layout.gpus_per_node else None,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "exclude": slurm.exclude,
        "mem": slurm.memory,
        "mail_user": slurm.mail_user,
        "mail_type": slurm.mail_type,
        "stderr_to_stdout": True,
        "use_srun": False,
        "setup": _setup(submission),
        "teardown": lines_after(),
    }
    further: dict[str, Any] = {
        "requeue": True,
        "signal": f"USR2@{slurm.stop_notice_seconds}",
        "output": str(log),
        "reservation": slurm.reservation,
        "no-kill": True if layout.spare_nodes else None,  # the job survives a lost node
        **slurm.sbatch,
    }
    further = {key: value for key, value in further.items() if value not in (None, False)}
    own = {key: value for key, value in own.items() if value is not None}
    # None is the partition's limit; without the key submitit would set five minutes.
    return own | {"time": slurm.time_limit_minutes, "additional_parameters": further}


def _setup(submission: Submission) -> list[str]:
    """Return the shell lines before the supervisor.

    SIGTERM would end a shell at once, and the job with it; with a trap it waits for its child.
    """
    path = shlex.quote(str(submission.code))
    return [
        "trap : TERM USR2",
        f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",  # or packages in the current folder would take precedence
        *submission.slurm.setup,
        *lines_before(shlex.quote(submission.python), submission.home),
    ]


@contextmanager
def calling_sbatch() -> Generator[None]:
    """Keep other jobs' variables from sbatch, and so from the job; turn errors into `SlurmError`.

    SBATCH_* are already part of the configuration: see `fill_from_shell`.
    """
    try:
        with only_for_commands():
            yield
    except Exception as error:
        said = getattr(error, "stderr", "") or str(error)
        raise SlurmError(f"sbatch refused the job: {said}".strip()) from error
