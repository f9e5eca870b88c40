"""An inspection as text for people, and as JSON for programs."""

import json
import math
from dataclasses import asdict
from datetime import timedelta
from typing import Any, cast

from pipeline.system.command import plural
from pipeline.weights.inspect import Inspection, TensorFigures


def to_json(inspection: Inspection, tensors: list[TensorFigures] | None = None) -> str:
    """Return everything as one JSON object; numbers that are not finite are null."""
    whole: dict[str, Any] = asdict(inspection) | asdict(inspection.progress)
    del whole["progress"]
    whole |= {"path": str(inspection.path), "hashes": "match"}
    if tensors is not None:
        whole["tensors"] = [asdict(figures) for figures in tensors]
    return json.dumps(_finite(whole), indent=2, allow_nan=False)


def to_text(inspection: Inspection, tensors: list[TensorFigures] | None = None) -> str:
    """Return a table of the figures, one of the groups, and, if given, one of the tensors."""
    parts = [_aligned([[f"{name}:", value] for name, value in _lines(inspection)])]
    rows = [["group", "tensors", "elements", "bytes", "dtypes"]]
    for name, group in inspection.groups.items():
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in group.dtypes.items())
        rows.append(
            [name, *(f"{n:,}" for n in (group.tensors, group.elements, group.bytes)), dtypes]
        )
    parts.append(_aligned(rows, right=(1, 2, 3)))
    if tensors is not None:
        rows = [["group", "tensor", "shape", "dtype", "norm"]]
        rows += [
            [t.group, t.name, "x".join(map(str, t.shape)) or "-", t.dtype, f"{t.norm:.6g}"]
            for t in tensors
        ]
        parts.append(_aligned(rows, right=(4,)))
    return "\n\n".join(parts)


def _lines(shown: Inspection) -> list[tuple[str, str]]:
    progress = shown.progress
    classes = "" if shown.classes is None else f", {plural(shown.classes, 'class', 'classes')}"
    network = f"{shown.network or 'unknown'}, {shown.parameters:,} parameters{classes}"
    epoch = "" if shown.epoch is None else f", epoch {shown.epoch:.2f}"
    spent = timedelta(seconds=round(progress.seconds))
    libraries = ", ".join(f"{name} {version}" for name, version in shown.versions.items())
    lines = [
        ("checkpoint", str(shown.path)),
        ("files", f"{len(shown.files)}, {sum(shown.files.values()):,} bytes; all hashes match"),
        ("config", shown.config_name or "unknown"),
        ("network", network),
        ("step", f"{progress.step:,}{epoch}, after {spent} of training"),
        ("errors", _errors(shown)),
        ("dataset", f"fingerprint {progress.fingerprint}"),
        ("stream", f"seed {progress.seed}, global batch {progress.global_batch:,}"),
        ("average", "EMA of the weights" if shown.has_ema else "no EMA of the weights"),
        ("optimiser", ", ".join(shown.optimiser_groups) or "none: a run cannot resume from it"),
        ("loss scale", f"{progress.scaler.get('scale', 'none')}"),
        ("versions", libraries or "unknown"),
    ]
    if shown.average_of:
        steps = ", ".join(str(member["step"]) for member in shown.average_of)
        lines.append(("mean of", f"{len(shown.average_of)} checkpoints, of steps {steps}"))
    if shown.missing_final_step is not None:
        step = f"{shown.missing_final_step:,}"
        lines.append(("final", f"the checkpoint of the last step, {step}, is missing"))
    return lines


def _errors(shown: Inspection) -> str:
    named = (
        ("top-1", shown.progress.top1_error_percent),
        ("top-5", shown.top5_error_percent),
        ("best top-1 so far", shown.progress.best_top1_error_percent),
    )
    known = [f"{name} {error:.2f} %" for name, error in named if error is not None]
    return ", ".join(known) or "not evaluated"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in cast("list[Any]", value)]
    return value


def _aligned(rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """Columns two spaces apart; those whose numbers are in `right` are aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
