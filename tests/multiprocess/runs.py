"""Starting real training processes, and killing them."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file
from torch import Tensor

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
evaluate: {{every_steps: 40, rank_batch: 7}}
checkpoint: {{every_steps: 10}}
tracking: {{mlflow: false}}
"""


def write_recipe(folder: Path, data: Path) -> Path:
    """Write a configuration that trains for a second or two."""
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(data=data))
    return path


def start(*arguments: object, ranks: int = 1) -> subprocess.Popen[str]:
    """Start a training, under torchrun if there are several ranks."""
    torchrun = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    torchrun += ["--nproc-per-node", str(ranks), "-m"]
    command = [sys.executable, "-m", *(torchrun if ranks > 1 else []), "pipeline.train"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Await the end of a training that must succeed; return what it printed."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def kill_between_checkpoints(process: subprocess.Popen[str], run: Path, seed: int) -> int:
    """SIGKILL a training, and all its ranks, at a random moment after its next checkpoint.

    Returns how many steps its last checkpoint holds.
    """
    before = newest(run)
    deadline = time.monotonic() + 90
    while newest(run) == before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.005)
    time.sleep(random.Random(seed).uniform(0, 0.1))
    everyone = [psutil.Process(process.pid)]
    everyone += everyone[0].children(recursive=True)  # torchrun's ranks have sessions of their own
    for victim in everyone:
        victim.kill()
    process.communicate()
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
    """Return the run's events of one sort, in order."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]
