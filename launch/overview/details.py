"""One run in detail: its state, how its attempts ended, and what to do next."""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launch.overview.state import RunState, read_state, readable_result
from launch.slurm.api.jobs import QueuedJob
from launch.slurm.records.attempt import LATEST, LOGS
from launch.slurm.records.history import Outcome, all_outcomes, to_record
from launch.slurm.records.submission import Submission, own_job
from pipeline.config.load import ConfigError, load_saved
from pipeline.config.schema import Config
from pipeline.runs.folder import CONFIG_FILE
from pipeline.runs.result import cost_of
from pipeline.runs.summary import Metrics, read_metrics, tail
from pipeline.system.command import command_line
from pipeline.tracking.jsonl import METRICS

TAIL_LINES = 20
FINGERPRINT = 12
"""Characters shown of a fingerprint."""


@dataclass(frozen=True, slots=True)
class PastWarning:
    """A problem that did not stop the training."""

    when: str
    message: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Resources used by a run and, once it is finished, its results; None means unknown."""

    top5_error_percent: float | None
    seconds: float | None
    """Of training, without evaluations and saves."""
    dataset: str | None
    """Its folder and the start of its fingerprint."""
    mlflow_run_id: str | None
    gpu_hours: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class RunDetails:
    """One run."""

    run: RunState
    configuration: str
    """The name of the recipe, or why it cannot be read."""
    world_size: int | None
    node_list: str
    attempts: list[Outcome]
    """The outcomes of all submissions, oldest first."""
    warnings: list[PastWarning]
    paths: dict[str, Path]
    log: Path | None
    """If the run failed, the log of the rank that failed first; else that of rank 0."""
    log_tail: str
    figures: Figures
    next_commands: list[str]


def read_details(
    run_dir: Path,
    submission: Submission | None,
    jobs: Mapping[str, QueuedJob] | None,
) -> RunDetails:
    """Return the details of the run in `run_dir`; `jobs` is None if SLURM does not answer."""
    metrics = read_metrics(run_dir)
    state = read_state(run_dir, submission, jobs, metrics)
    attempts = all_outcomes(run_dir)
    log = relevant_log(run_dir, state, attempts)
    config, fault = _read_config(run_dir)
    job = own_job(submission, jobs or {}) if submission else None
    return RunDetails(
        run=state,
        configuration=config.title if config else fault,
        world_size=_world_size(metrics, submission),
        node_list=job.node_list if job else "",
        attempts=attempts,
        warnings=[
            PastWarning(_clock(event.get("time", 0.0)), str(event.get("message", "")))
            for event in metrics.warnings
        ],
        paths=_paths(run_dir, submission),
        log=log,
        log_tail=tail(log, TAIL_LINES) if log else "",
        next_commands=next_commands(state, log),
        figures=_figures(run_dir, metrics, config),
    )


def to_json(details: RunDetails) -> str:
    """Return the details as one JSON object."""
    whole: dict[str, Any] = asdict(details)
    whole["attempts"] = [to_record(each) for each in details.attempts]
    return json.dumps(whole.pop("run") | whole, indent=2, default=str)


def relevant_log(run_dir: Path, state: RunState, attempts: list[Outcome]) -> Path | None:
    """Return the log to look at; None if it is missing, as for runs outside SLURM."""
    if state.state == "failed" and attempts:
        failed = Path(attempts[-1].log)
        if failed.is_file():
            return failed
    logs = run_dir / LOGS
    by_rank, by_job = logs / LATEST / "rank-0.log", logs / f"job-{state.job_id}.log"
    return next((path for path in (by_rank, by_job) if path.exists()), None)


def next_commands(run: RunState, log: Path | None) -> list[str]:
    """Return the commands that make sense now."""
    follow = [shlex.join(["tail", "-f", str(log)])] if log else []
    cancel = command_line("launch/cancel.py", run.run_dir)
    match run.state:
        case "finished":
            return [command_line("launch/checkpoint.py", "inspect", run.run_dir)]
        case "running" | "cancelling":
            return [*follow, cancel]
        case "pending" | "completing" | "configuring" | "suspended":
            return [cancel]
        case "unknown":
            return ["sinfo"]
        case _:
            return [command_line("launch/resume.py", run.run_dir)]


def _read_config(run_dir: Path) -> tuple[Config | None, str]:
    """Return the configuration of a run, or why it cannot be read."""
    try:
        return load_saved(run_dir / CONFIG_FILE), ""
    except ConfigError as error:
        return None, f"no longer valid: {str(error).splitlines()[0]}"


def _figures(run_dir: Path, metrics: Metrics, config: Config | None) -> Figures:
    result = readable_result(run_dir)
    price = config.launch.price_per_gpu_hour if config else None
    fingerprint = metrics.started.get("tags", {}).get("dataset_fingerprint")
    fingerprint = str(result.get("dataset_fingerprint") or fingerprint or "")[:FINGERPRINT]
    place = [str(config.data.dir)] if config else []
    gpu_hours = result.get("gpu_hours") or metrics.gpu_hours
    return Figures(
        top5_error_percent=result.get("top5_error_percent"),
        seconds=result.get("seconds"),
        dataset=", ".join([*place, *([f"fingerprint {fingerprint}"] if fingerprint else [])]),
        mlflow_run_id=result.get("mlflow_run_id"),
        gpu_hours=gpu_hours,
        cost=cost_of(gpu_hours, price),
    )


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
