"""Chaos: a training is killed, frozen and stopped at random, while its engine and ranks change.

    python -m tests.multiprocess.chaos FOLDER [--kills 50] [--steps 300] [--dataset DATASET]

trains in FOLDER, each time from the first step to the last, until `--kills` faults have occurred.
It repeats each training without faults: the same engines and numbers of ranks over the same steps.
The exit code is 1 unless both give the same bits, each step had the same images in every attempt,
and no checkpoint was damaged.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pipeline.system.command import plural
from tests.multiprocess.faults import (
    ANY,
    BITWISE,
    Chaos,
    Setting,
    train_in_legs,
    train_with_faults,
)
from tests.multiprocess.recorded import RecordedStep, differing_steps, recorded_steps
from tests.multiprocess.runs import state, write_recipe
from tests.multiprocess.server import import_everything
from tests.support.images import make_dataset

RUNNING = ("running_mean", "running_var")


def legs_of(
    chaos: Chaos, recorded: list[RecordedStep], last_step: int
) -> list[tuple[Setting, int]]:
    """Return the last step of each setting, without lost steps."""
    first = {
        attempt: min(each.step for each in recorded if each.attempt == attempt)
        for attempt in {each.attempt for each in recorded}
    }
    order = sorted(first)
    ends = [first[later] - 1 for later in order[1:]] + [last_step]
    legs = [(chaos.settings[attempt], end) for attempt, end in zip(order, ends, strict=True)]
    return [leg for leg, before in zip(legs, [0, *ends[:-1]], strict=True) if leg[1] > before]


def difference(one: Path, other: Path, *, ignored: tuple[str, ...] = ()) -> float:
    """Return the largest difference between the last checkpoints of two runs; 0 if bit-identical.

    Tensors whose names end in one of `ignored` do not count.
    """
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    return max(
        0.0
        if torch.equal(first[name], second[name])
        else (first[name].double() - second[name].double()).abs().max().item() or float("nan")
        for name in first
        if not name.endswith(ignored)
    )


@dataclass
class Report:
    """The outcome of one training, with and without faults."""

    seed: int
    ranks: list[int]
    faults: dict[str, int]
    attempts: int
    legs: int
    steps_compared: int
    differing_steps: list[int]
    damaged: list[str]
    largest_difference: float
    difference_to_unbroken: float | None
    """In weights, momentum and average, from an unbroken DDP run; None if bits may differ."""
    end_seconds: list[float]
    resume_seconds: list[float]
    """From a fault to the first step of the next attempt, without imports."""

    @property
    def passed(self) -> bool:
        same = self.largest_difference == 0 and not self.difference_to_unbroken
        return same and not self.damaged and not self.differing_steps and self.steps_compared > 0


def try_once(
    folder: Path, command: list[object], *, steps: int, seed: int, bitwise: bool
) -> Report:
    """Train in `folder` with faults and without, and compare."""
    choices = BITWISE if bitwise else ANY
    records = {name: folder / f"{name}-records" for name in ("faulty", "legs", "unbroken")}
    for each in records.values():
        each.mkdir(parents=True)
    command = [*command, f"train.steps={steps}"]
    chaos = train_with_faults(
        command,
        folder / "faulty",
        records["faulty"],
        choices=choices,
        generator=random.Random(seed),
    )
    recorded = recorded_steps(records["faulty"])
    legs = legs_of(chaos, recorded, steps)
    train_in_legs(command, folder / "legs", records["legs"], legs=legs)
    unbroken = None
    if bitwise:
        train_in_legs(command, folder / "unbroken", records["unbroken"], legs=[(BITWISE[0], steps)])
        unbroken = difference(folder / "faulty", folder / "unbroken", ignored=RUNNING)
    expected = recorded_steps(records["legs"])
    return Report(
        seed=seed,
        ranks=sorted({setting.ranks for setting in chaos.settings}),
        faults=dict(chaos.faults),
        attempts=len(chaos.settings),
        legs=len(legs),
        steps_compared=len(recorded),
        differing_steps=differing_steps(recorded, expected),
        damaged=chaos.damaged,
        largest_difference=difference(folder / "faulty", folder / "legs"),
        difference_to_unbroken=unbroken,
        end_seconds=chaos.end_seconds[:-1],
        resume_seconds=resume_seconds(chaos, recorded),
    )


def resume_seconds(chaos: Chaos, recorded: list[RecordedStep]) -> list[float]:
    """Return the time from each fault to the first step of the next attempt, if it took one."""
    first: dict[int, float] = {}
    for each in recorded:
        first.setdefault(each.attempt, each.started)
    return [
        first[attempt + 1] - chaos.fault_times[attempt]
        for attempt in range(len(chaos.settings) - 1)
        if attempt + 1 in first
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.multiprocess.chaos")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--dataset", type=Path, help="made by data/prepare.py; default: noise")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    import_everything()  # once, not in every rank
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True)
    command = _command(options.folder, options.dataset)
    reports: list[Report] = []
    while sum(sum(report.faults.values()) for report in reports) < options.kills:
        seed = options.seed + len(reports)
        folder = options.folder / f"training-{seed}"
        report = try_once(
            folder, command, steps=options.steps, seed=seed, bitwise=len(reports) % 2 == 0
        )
        print(json.dumps(asdict(report)), flush=True)
        reports.append(report)
        if report.passed:
            shutil.rmtree(folder)
    print(_summary(reports), file=sys.stderr)
    return 0 if all(report.passed for report in reports) else 1


def _command(folder: Path, dataset: Path | None) -> list[object]:
    """Return what to train: ResNet-8 on full-size CIFAR images, or on a few small ones."""
    noise = None if dataset else make_dataset(folder / "data", train=90, val=23)
    cifar = [
        *("data.train.size=32", "data.train.pad=4", "data.eval.resize=32", "data.eval.size=32"),
        *("evaluate.every_steps=150", "evaluate.batch_per_rank=500", "train.global_batch=48"),
    ]
    recipe = write_recipe(folder, dataset or noise)
    settings = cifar if dataset else ["train.global_batch=24"]
    return [recipe, *settings, "model.batch_norm_group=4"]


def _summary(reports: list[Report]) -> str:
    faults = sum((Counter(report.faults) for report in reports), Counter[str]())
    ends = [seconds for report in reports for seconds in report.end_seconds]
    resumed = [seconds for report in reports for seconds in report.resume_seconds]
    lines = [
        *(f"{count:4} x {fault}" for fault, count in faults.most_common()),
        f"{plural(sum(faults.values()), 'fault')},"
        f" {plural(sum(report.attempts for report in reports), 'attempt')} at"
        f" {plural(len(reports), 'training')},"
        f" {plural(sum(report.steps_compared for report in reports), 'step')} compared with those"
        " of a training without faults",
        f"{plural(sum(len(report.damaged) for report in reports), 'damaged checkpoint')},"
        f" {plural(sum(len(report.differing_steps) for report in reports), 'step')} with other"
        " images, largest final difference"
        f" {max(report.largest_difference for report in reports)}",
    ]
    for name, seconds in (("the end of the last rank", ends), ("the next step", resumed)):
        if seconds:
            lines.append(
                f"from a fault to {name}: median {statistics.median(seconds):.2f} s,"
                f" longest {max(seconds):.2f} s"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    raise SystemExit(main())
