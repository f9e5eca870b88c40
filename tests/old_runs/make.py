"""Make an archive of run folders as the code of one commit writes them; later code must open them.

    git worktree add --detach OLD COMMIT
    PYTHONPATH=OLD python tests/old_runs/make.py tests/old_runs/runs-of-YEAR-MONTH.tar.xz

The commands of OLD prepare the dataset, train and average. Its own `write_checkpoint` then writes
each checkpoint once more, with floats that are rounded to a few bits, so that they compress. An
archive is never changed. When a format changes, this script makes another one from the last commit
before that; it may have to follow the names of that commit's modules. Paths are relative to the
top of the archive:

    datasets/tiny/            a few small JPEGs in three classes, and their index
    unfinished.yaml           the recipe of runs/unfinished-ID, which was killed after step 8 of 12
    finished.yaml             the recipe of runs/finished
    averages/unfinished/      the mean of the two checkpoints of that run
    averages/resnet18/        a network that torchvision and timm have, too
    resumed.jsonl             what OLD reports when it resumes runs/unfinished-ID
"""

import json
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

import pipeline
from pipeline.checkpoint import read_checkpoint, write_checkpoint

CODE = Path(pipeline.__file__).resolve().parents[1]
DATASET = Path("datasets/tiny")
IMAGES = {"train": 36, "val": 12}
CLASSES = ("blue", "green", "red")
MODIFIED = 1_790_000_000
"""Modification time of each file in the archive, in whole seconds, as tar stores it."""

RECIPE = """
name: {name}
seed: 3
data:
  dir: datasets/tiny
  train: {{name: pad_crop, size: 16, pad: 2}}
  eval: {{resize: 16, size: 16}}
  loader: {{name: dali, threads: 1}}
evaluate: {{every_steps: 4, rank_batch: 7}}
launch: {{preflight: false, start_report: false}}
tracking: {{mlflow: false}}
schedule: {{name: cosine, warmup_steps: 2}}
optim: {{lr: 0.05, momentum: 0.9}}
"""
RECIPES = {
    "unfinished": """
model: {name: cifar_resnet8}
train: {steps: 12, global_batch: 16, precision: fp32, ema: {decay: 0.9}, log_every_steps: 1}
checkpoint: {every_steps: 4, keep_last: 3}
""",
    "finished": """
model: {name: cifar_resnet8}
train: {steps: 8, global_batch: 16, precision: fp16, log_every_steps: 4}
checkpoint: {every_steps: 4, keep_last: 1, keep_best: false}
run_dir: runs/finished
""",
    "resnet18": """
model: {name: resnet18}
train: {steps: 2, global_batch: 16, precision: fp32}
checkpoint: {every_steps: 1}
run_dir: runs/resnet18
""",
}
KILLED_AFTER = 8

MANTISSA_BITS = 2
"""Of 23 bits, this many are kept; the others are zero."""
MANY_VALUES = 1_000_000
FEW_VALUES = 1_000
"""In a network with many values, each tensor keeps its first ones; the others are zero."""


def main(out: Path) -> None:
    """Make the content of the archive in a temporary folder, and pack it."""
    out = out.absolute()
    with TemporaryDirectory() as folder, chdir(folder):
        draw_images()
        python(CODE / "data/prepare.py", "imagefolder", DATASET, "--out", DATASET, "--workers", 1)
        for name, recipe in RECIPES.items():
            Path(f"{name}.yaml").write_text(RECIPE.format(name=name).lstrip() + recipe.lstrip())
            python("-m", "pipeline.train", f"{name}.yaml")
        for checkpoint in sorted(Path("runs").glob("*/checkpoints/step-*")):
            simplify(checkpoint)
        (unfinished,) = Path("runs").glob("unfinished-*")
        cut_off(unfinished)
        Path("averages").mkdir()
        for run, name in ((unfinished, "unfinished"), (Path("runs/resnet18"), "resnet18")):
            target = f"averages/{name}"
            python(CODE / "launch/checkpoint.py", "average", run, "--last", 2, "--out", target)
        shutil.rmtree("runs/resnet18")
        Path("resnet18.yaml").unlink()
        for text in (unfinished / "metrics.jsonl", *Path("runs/finished").glob("*.json*")):
            text.write_text(neutral(text.read_text()))
        write_resumed(unfinished)
        expect_neutral()
        pack(out)


def python(*arguments: object) -> None:
    """Run a program of OLD in this folder."""
    variables = {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, env=os.environ | variables, check=True)


def draw_images() -> None:
    """Draw noise about the colour of each class."""
    random = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for number in range(count):
            label = number % len(CLASSES)
            size = (18 + number % 5, 17 + number % 3)
            pixels = random.normal(110, 30, (*size, 3))
            pixels[..., 2 - label] += 60
            path = DATASET / split / CLASSES[label] / f"{number:02}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            os.utime(path, (MODIFIED, MODIFIED))


def simplify(path: Path) -> None:
    """Write a checkpoint again, with compressible tensors and without the machine's name."""
    snapshot = read_checkpoint(path)
    size = sum(tensor.numel() for tensor in snapshot.tensors["model"].values())
    tensors = {
        group: {name: simpler(t, few=size > MANY_VALUES) for name, t in each.items()}
        for group, each in snapshot.tensors.items()
    }
    documents = {name: neutral(text) for name, text in snapshot.documents.items()}
    write_checkpoint(path.parent, replace(snapshot, tensors=tensors, documents=documents))


def simpler(tensor: torch.Tensor, *, few: bool) -> torch.Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    dropped = 23 - MANTISSA_BITS
    bits = tensor.contiguous().view(torch.int32)
    rounded = ((bits + (1 << (dropped - 1))) & -(1 << dropped)).view(torch.float32)
    if few:
        rounded.view(-1)[FEW_VALUES:] = 0
    return rounded


def cut_off(run: Path) -> None:
    """Turn a finished run into one that SIGKILL ended after one of its checkpoints."""
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > KILLED_AFTER:
            shutil.rmtree(path)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    told = [
        line
        for line, event in zip(lines, map(json.loads, lines), strict=True)
        if event.get("step", 0) <= KILLED_AFTER and event["event"] != "run_ended"
    ]
    (run / "metrics.jsonl").write_text("".join(told))


def neutral(text: str) -> str:
    """Return a program's output without the names of this folder and machine."""
    text = text.replace(f"{Path.cwd()}/", "")
    return re.sub(r'"host": "[^"]*"', '"host": "host"', text)


def write_resumed(run: Path) -> None:
    """Resume a copy of the unfinished run, and keep its reports."""
    here = Path.cwd()
    with TemporaryDirectory() as aside:
        shutil.copytree(here, aside, dirs_exist_ok=True)
        with chdir(aside):
            python("-m", "pipeline.train", "unfinished.yaml")
            told = (run / "metrics.jsonl").read_text()
    before = (run / "metrics.jsonl").read_text()
    lines = told.removeprefix(before).splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["event"] in ("progress", "evaluated")]
    Path("resumed.jsonl").write_text("".join(kept))


def files() -> Iterator[Path]:
    return (path for path in sorted(Path().rglob("*")) if path.is_file())


def expect_neutral() -> None:
    """Fail if a file contains the name of this folder, of the code's folder or of this machine."""
    for path in files():
        content = path.read_bytes()
        for word in (str(Path.cwd()), str(CODE), f'"{platform.node()}"'):
            assert word.encode() not in content, f"{path} has {word}"


def pack(out: Path) -> None:
    """Write everything here to an archive that does not depend on the user or the machine."""
    # The values lie at multiples of four bytes, which the compressor may know.
    tuned = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 2, "lp": 2, "pb": 2}
    with (
        lzma.open(out, "wb", filters=[tuned]) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as archive,
    ):
        for path in files():
            member = archive.gettarinfo(path)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode, member.mtime = 0o644, MODIFIED
            with path.open("rb") as content:
                archive.addfile(member, content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
