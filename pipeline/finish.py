"""The end of a run: its last weights are on disk, then its result is."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Checkpoints
from pipeline.evaluation.counts import Counts
from pipeline.job import Job
from pipeline.loop import COLLECTIVE_EXTRA_MINUTES, Run
from pipeline.runs.folder import REMEDY, RESULT
from pipeline.runs.result import Result, cost_of
from pipeline.runs.summary import read_metrics
from pipeline.system.durable import write_whole
from pipeline.system.exit_codes import NotSaved
from pipeline.system.patience import patiently
from pipeline.tracking import events
from pipeline.tracking.tracker import Tracker


def expect_last_weights(job: Job, checkpoints: Checkpoints) -> None:
    """Wait until the last weights are on disk; raise `NotSaved`, on all ranks, if they are not."""
    patience = job.watchdog.other_minutes + COLLECTIVE_EXTRA_MINUTES
    job.world.expect_answers_within(patience)
    job.world.broadcast_from_main(lambda: checkpoints.expect_saved(job.plan.last_step))


def finish(job: Job, run: Run, counts: Counts, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Write result.json, and report the end to the trackers; return the result. A collective."""
    timeout = job.config.tracking.drain_timeout_seconds
    run_id = tracker.mlflow_run_id(timeout)
    result = asdict(describe_result(job, run, counts, folder=folder, mlflow_run_id=run_id))
    job.world.broadcast_from_main(lambda: write_result(job, folder, result))
    tracker.emit(events.RunEnded("finished", result=result))
    tracker.drain(timeout)
    return result


def write_result(job: Job, folder: Path, result: dict[str, Any]) -> None:
    """Write result.json, which makes the run a finished one; raise `NotSaved` if that fails."""
    job.fence.expect_mine()
    path, content = folder / RESULT, json.dumps(result, indent=2).encode() + b"\n"
    try:
        patiently(lambda: write_whole(path, content))
    except OSError as error:
        why = f"the last checkpoint is on disk, but {path} could not be written ({error})"
        raise NotSaved(f"{why}; {REMEDY}") from error


def describe_result(
    job: Job, run: Run, counts: Counts, *, folder: Path, mlflow_run_id: str | None
) -> Result:
    """Return the figures of a run whose last evaluation gave `counts`."""
    plan, seconds = job.plan, run.progress.seconds
    gpu_hours = read_metrics(folder).gpu_hours
    return Result(
        name=job.config.title,
        top1_error_percent=counts.top1_error_percent,
        top5_error_percent=counts.top5_error_percent,
        validation_loss=counts.loss if math.isfinite(counts.loss) else None,
        images_evaluated=counts.images,
        best_top1_error_percent=run.progress.best_top1_error_percent,
        steps=plan.last_step,
        epochs=plan.epoch(plan.last_step),
        images_per_second=plan.last_step * plan.global_batch / seconds,
        seconds=seconds,
        parameters=run.parameters,
        classes=len(job.dataset.classes),
        world_size=job.world.size,
        device=job.world.device.type,
        dataset_fingerprint=job.dataset.fingerprint,
        run_dir=str(folder.resolve()),
        mlflow_run_id=mlflow_run_id,
        gpu_hours=gpu_hours,
        cost=cost_of(gpu_hours, job.config.launch.price_per_gpu_hour),
    )
