"""Chaos: a training that is killed, frozen and stopped at random, on changing engines and ranks.

    python -m tests.multiprocess.chaos FOLDER [--kills 50] [--steps 300] [--dataset DATASET]

trains in FOLDER, over and over, until so many blows have fallen, and each time from the first step
to the last. Then it trains the same without a blow: the same engines on the same ranks over the
same steps. It ends with code 1 unless both come to the same bits, every step got the same images in
every attempt, and no checkpoint was ever damaged.
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

from tests.multiprocess.blows import ANY, BITWISE, Chaos, Setting, relay, suffer
from tests.multiprocess.noted import Taken, differing_steps, taken_steps
from tests.multiprocess.runs import state, write_recipe
from tests.multiprocess.server import import_everything
from tests.support.images import make_dataset

RUNNING = ("running_mean", "running_var")


def legs_of(chaos: Chaos, taken: list[Taken], last_step: int) -> list[tuple[Setting, int]]:
    """Return which setting took the run up to which step, leaving out what was lost."""
    first = {
        attempt: min(each.step for each in taken if each.attempt == attempt)
        for attempt in {each.attempt for each in taken}
    }
    order = sorted(first)
    ends = [first[later] - 1 for later in order[1:]] + [last_step]
    legs = [(chaos.settings[attempt], end) for attempt, end in zip(order, ends, strict=True)]
    return [leg for leg, before in zip(legs, [0, *ends[:-1]], strict=True) if leg[1] > before]


def difference(one: Path, other: Path, *, but_for: tuple[str, ...] = ()) -> float:
    """Return the largest difference between the last checkpoints of two runs; 0 is: every bit."""
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    return max(
        0.0
        if torch.equal(first[name], second[name])
        else (first[name].double() - second[name].double()).abs().max().item() or float("nan")
        for name in first
        if not name.endswith(but_for)
    )


@dataclass
class Report:
    """What one training came to, struck and not."""

    seed: int
    ranks: list[int]
    blows: dict[str, int]
    attempts: int
    legs: int
    steps_compared: int
    differing_steps: list[int]
    damaged: list[str]
    largest_difference: float
    difference_to_unbroken: float | None
    """Of weights, momentum and average, to one run of DDP that knew nothing; else None."""
    end_seconds: list[float]
    resume_seconds: list[float]
    """From a blow to the first new step, imports left out."""

    @property
    def is_well(self) -> bool:
        same = self.largest_difference == 0 and not self.difference_to_unbroken
        return same and not self.damaged and not self.differing_steps and self.steps_compared > 0


def try_once(
    folder: Path, command: list[object], *, steps: int, seed: int, bitwise: bool
) -> Report:
    """Train under blows and without, in `folder`, and hold one against the other."""
    choices = BITWISE if bitwise else ANY
    notes = {name: folder / f"{name}-notes" for name in ("struck", "relay", "whole")}
    for each in notes.values():
        each.mkdir(parents=True)
    command = [*command, f"train.steps={steps}"]
    chaos = suffer(
        command, folder / "struck", notes["struck"], choices=choices, dice=random.Random(seed)
    )
    taken = taken_steps(notes["struck"])
    legs = legs_of(chaos, taken, steps)
    relay(command, folder / "relay", notes["relay"], legs=legs)
    unbroken = None
    if bitwise:
        relay(command, folder / "whole", notes["whole"], legs=[(BITWISE[0], steps)])
        unbroken = difference(folder / "struck", folder / "whole", but_for=RUNNING)
    expected = taken_steps(notes["relay"])
    first = {}
    for each in taken:
        first.setdefault(each.attempt, each.began)
    return Report(
        seed=seed,
        ranks=sorted({setting.ranks for setting in chaos.settings}),
        blows=dict(chaos.blows),
        attempts=len(chaos.settings),
        legs=len(legs),
        steps_compared=len(taken),
        differing_steps=differing_steps(taken, expected),
        damaged=chaos.damaged,
        largest_difference=difference(folder / "struck", folder / "relay"),
        difference_to_unbroken=unbroken,
        end_seconds=chaos.end_seconds[:-1],
        resume_seconds=[
            first[attempt + 1] - chaos.struck[attempt]
            for attempt in range(len(chaos.settings) - 1)
            if attempt + 1 in first
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.multiprocess.chaos")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--dataset", type=Path, help="one made by data/prepare.py; else noise")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    import_everything()  # once, and not in every rank
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True)
    command = _command(options.folder, options.dataset)
    reports: list[Report] = []
    while sum(sum(report.blows.values()) for report in reports) < options.kills:
        seed = options.seed + len(reports)
        folder = options.folder / f"training-{seed}"
        report = try_once(
            folder, command, steps=options.steps, seed=seed, bitwise=len(reports) % 2 == 0
        )
        print(json.dumps(asdict(report)), flush=True)
        reports.append(report)
        if report.is_well:
            shutil.rmtree(folder)
    print(_summary(reports), file=sys.stderr)
    return 0 if all(report.is_well for report in reports) else 1


def _command(folder: Path, dataset: Path | None) -> list[object]:
    """Return what to train: ResNet-8 on CIFAR's images as they are, or on a few small ones."""
    noise = None if dataset else make_dataset(folder / "data", train=90, val=23)
    cifar = [
        *("data.train.size=32", "data.train.pad=4", "data.eval.resize=32", "data.eval.size=32"),
        *("evaluate.every_steps=150", "evaluate.batch_per_rank=500", "train.global_batch=48"),
    ]
    recipe = write_recipe(folder, dataset or noise)
    settings = cifar if dataset else ["train.global_batch=24"]
    return [recipe, *settings, "model.batch_norm_group=4"]


def _summary(reports: list[Report]) -> str:
    blows = sum((Counter(report.blows) for report in reports), Counter[str]())
    ends = [seconds for report in reports for seconds in report.end_seconds]
    resumed = [seconds for report in reports for seconds in report.resume_seconds]
    lines = [
        *(f"{count:4} x {blow}" for blow, count in blows.most_common()),
        f"{sum(blows.values())} blows, {sum(report.attempts for report in reports)} attempts at"
        f" {len(reports)} trainings, {sum(report.steps_compared for report in reports):,} steps"
        " compared with those of a training without blows",
        f"{sum(len(report.damaged) for report in reports)} damaged checkpoints,"
        f" {sum(len(report.differing_steps) for report in reports)} steps with other images,"
        f" largest difference in the end {max(report.largest_difference for report in reports)}",
    ]
    for name, seconds in (("the last rank's end", ends), ("the next step", resumed)):
        if seconds:
            lines.append(
                f"from a blow to {name}: median {statistics.median(seconds):.2f} s,"
                f" longest {max(seconds):.2f} s"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    raise SystemExit(main())
