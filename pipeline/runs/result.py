"""What a finished run comes to: the contents of result.json."""

import math
from typing import Any

from pipeline.dataset.index import Manifest
from pipeline.evaluation.counts import Counts
from pipeline.loop import Run


def describe_result(run: Run, counts: Counts, *, name: str, manifest: Manifest) -> dict[str, Any]:
    """Return the figures of the run called `name`, whose last evaluation gave `counts`."""
    plan, seconds = run.plan, run.progress.seconds
    return {
        "name": name,
        "top1_error_percent": counts.top1_error_percent,
        "top5_error_percent": counts.top5_error_percent,
        "validation_loss": counts.loss if math.isfinite(counts.loss) else None,
        "images_evaluated": counts.images,
        "best_top1_error_percent": run.progress.best_top1_error_percent,
        "steps": plan.last_step,
        "epochs": plan.epoch(plan.last_step),
        "images_per_second": plan.last_step * plan.global_batch / seconds,
        "seconds": seconds,
        "parameters": run.parameters,
        "classes": len(manifest.classes),
        "world_size": run.world.size,
        "device": run.world.device.type,
        "dataset_fingerprint": manifest.fingerprint,
    }
