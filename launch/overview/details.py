"""All about one run: where it stands, how its attempts ended, and what to look at next."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.overview.state import Standing, read_standing
from launch.slurm.api.jobs import QueuedJob
from launch.slurm.records.attempt import LATEST, LOGS
from launch.slurm.records.history import read_history
from launch.slurm.records.submission import RECORD, SUBMISSIONS, Submission
from launch.slurm.supervise.restart_policy import Outcome
from pipeline.config.load import ConfigError, load
from pipeline.runs.folder import CONFIG_FILE
from pipeline.runs.logs import tail
from pipeline.runs.summary import Metrics, read_metrics
from pipeline.tracking.jsonl import METRICS

TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - the run's, not Python's
    """Something that went wrong and did not stop the training."""

    when: str
    message: str


@dataclass(frozen=True, slots=True)
class Details:
    """One run."""

    standing: Standing
    configuration: str
    """Name of the recipe, or why there is none."""
    world_size: int | None
    node_list: str
    attempts: list[Outcome]
    """Of all submissions, oldest first."""
    warnings: list[Warning]
    paths: dict[str, Path]
    log: Path | None
    """That of the rank that failed, if the run failed; else that of rank 0."""
    log_tail: str
    next_commands: list[str]


def read_details(
    run_dir: Path,
    submission: Submission | None,
    jobs: Mapping[str, QueuedJob] | None,
) -> Details:
    """Return all about the run in `run_dir`; `jobs` is None if SLURM does not answer."""
    metrics = read_metrics(run_dir)
    standing = read_standing(run_dir, submission, jobs, metrics)
    attempts = all_outcomes(run_dir)
    log = log_that_matters(run_dir, standing, attempts)
    job = (jobs or {}).get(standing.job_id or "")
    return Details(
        standing=standing,
        configuration=_configuration(run_dir),
        world_size=_world_size(metrics, submission),
        node_list=job.node_list if job else "",
        attempts=attempts,
        warnings=[
            Warning(_clock(event.get("time", 0.0)), str(event.get("message", "")))
            for event in metrics.warnings
        ],
        paths=_paths(run_dir, submission),
        log=log,
        log_tail=tail(log, TAIL_LINES) if log else "",
        next_commands=next_commands(standing, log),
    )


def to_json(shown: Details) -> str:
    """Return everything as one JSON object."""
    whole: dict[str, Any] = asdict(shown)
    return json.dumps(whole.pop("standing") | whole, indent=2, default=str)


def all_outcomes(run_dir: Path) -> list[Outcome]:
    """Return how the attempts of all submissions ended, oldest first."""
    folders = sorted(path.parent for path in (run_dir / SUBMISSIONS).glob(f"*/{RECORD}"))
    return [outcome for folder in folders for outcome in read_history(folder)]


def log_that_matters(run_dir: Path, standing: Standing, attempts: list[Outcome]) -> Path | None:
    """Return the log to look at; None if no log was kept, as of a run outside SLURM."""
    if standing.state == "failed" and attempts:
        failed = Path(attempts[-1].log)
        if failed.is_file():
            return failed
    logs = run_dir / LOGS
    by_ranks, by_job = logs / LATEST / "rank-0.log", logs / f"job-{standing.job_id}.log"
    return next((path for path in (by_ranks, by_job) if path.exists()), None)


def next_commands(standing: Standing, log: Path | None) -> list[str]:
    """Return what one might want to type now."""
    run = standing.run_dir
    follow = [f"tail -f {log}"] if log else []
    match standing.state:
        case "finished":
            return [f"python launch/checkpoint.py inspect {run}"]
        case "running" | "cancelling":
            return [*follow, f"python launch/cancel.py {run}"]
        case "pending" | "completing" | "configuring" | "suspended":
            return [f"python launch/cancel.py {run}"]
        case "unknown":
            return ["sinfo"]
        case _:
            return [f"python launch/resume.py {run}"]


def _configuration(run_dir: Path) -> str:
    try:
        return load(run_dir / CONFIG_FILE).name
    except ConfigError as error:
        return f"no longer valid: {str(error).splitlines()[0]}"


def _world_size(metrics: Metrics, submission: Submission | None) -> int | None:
    if submission is not None:
        return submission.layout.world_size
    return metrics.started.get("world_size")


def _paths(run_dir: Path, submission: Submission | None) -> dict[str, Path]:
    whole = run_dir.resolve()
    paths = {"Run folder": whole, "Events": whole / METRICS}
    if submission is not None and submission.job_id:
        batch = whole / LOGS / f"job-{submission.job_id}.log"
        paths |= {"Submission": submission.folder, "Log of the job": batch}
    return paths


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
