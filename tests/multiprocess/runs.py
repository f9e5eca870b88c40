"""Starts real training processes, and kills them."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.multiprocess.server import Forked, fork_server

SECONDS = 240.0

RECIPE = """
name: tiny
seed: 3
data:
  dir: {data}
  train: {{name: pad_crop, size: 16, pad: 2}}
  eval: {{resize: 16, size: 16}}
  loader: {{name: dali, threads: 1}}
model: {{name: cifar_resnet8, batch_norm_group: 8}}
train:
  steps: 120
  global_batch: 16
  precision: fp32
  ema: {{decay: 0.9}}
  log_every_steps: 5
optim: {{lr: 0.05}}
schedule: {{name: cosine, warmup_steps: 4}}
evaluate: {{every_steps: 40, batch_per_rank: 7}}
checkpoint: {{every_steps: 10}}
tracking: {{mlflow: false}}
"""


def write_recipe(folder: Path, data: Path) -> Path:
    """Write a configuration that trains for about a second; return its path."""
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(data=data))
    return path


def start(*arguments: object, ranks: int = 1) -> Forked:
    """Start a training with one process for each rank."""
    return fork_server().start("pipeline.train:main", *arguments, ranks=ranks)


def finish(training: Forked) -> str:
    """Wait for a training that must succeed; return its output."""
    codes, output = training.end(SECONDS)
    assert set(codes) == {0}, output
    return output


def train_until(done: Callable[[], bool], training: Forked) -> None:
    """Wait until `done()`; fail if the training ends first."""
    deadline = time.monotonic() + SECONDS
    while not done():
        assert not training.ranks.poll(), training.end(SECONDS)
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)


def kill_between_checkpoints(training: Forked, run: Path, seed: int) -> int:
    """SIGKILL all ranks of a training at a random moment after its next checkpoint.

    Returns the step of its last checkpoint.
    """
    before = newest(run)
    train_until(lambda: newest(run) != before, training)
    time.sleep(random.Random(seed).uniform(0, 0.1))
    training.ranks.send(SIGKILL, training.ranks.pids)
    training.end(SECONDS)
    return newest(run)


def newest(run: Path) -> int:
    """Return the step of the newest checkpoint, or 0."""
    return max((int(p.name.split("-")[1]) for p in run.glob("checkpoints/step-*")), default=0)


def state(run: Path) -> dict[str, Tensor]:
    """Return all tensors of a run's newest checkpoint."""
    folder = run / "checkpoints" / f"step-{newest(run):08d}"
    files = folder.glob("*.safetensors")
    return {f"{f.stem}/{name}": t for f in files for name, t in load_file(f).items()}


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the run's events called `name`, in order."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]
