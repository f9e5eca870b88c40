"""Checks and figures of a run before any process starts."""

import shutil
from dataclasses import dataclass

import torch

from pipeline.config.schema import Config, Cosine, Dali, Polynomial, StepDecay
from pipeline.dataset.split import Split, open_split
from pipeline.job import expect_files
from pipeline.models import build_shapes, count_parameters
from pipeline.optim.build import peak_rate
from pipeline.optim.schedule import warmup_steps
from pipeline.plan import Plan, doubts, make_plan
from pipeline.runs.precision import slow_precision
from pipeline.storage.staging import stage_root, staged_bytes
from pipeline.system.command import plural
from pipeline.system.text import size
from pipeline.tracking.tracker import expect_usable_store

COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Preflight:
    """A checked configuration on `ranks` ranks."""

    config: Config
    ranks: int
    split: Split
    plan: Plan
    parameters: int

    def lines(self) -> list[tuple[str, str]]:
        """Return the summary to print before starting, as (name, value)."""
        plan, manifest = self.plan, self.split.train.manifest
        classes = plural(len(manifest.classes), "class", "classes")
        counts = f"{len(self.split.train):,} training and {len(self.split.val):,} validation images"
        accumulation = f" x {plan.accumulation} accumulated" if plan.accumulation > 1 else ""
        return [
            ("dataset", f"{manifest.name}, {classes}, {counts}"),
            ("fingerprint", manifest.fingerprint),
            ("network", f"{self.config.model.name}, {plural(self.parameters, 'parameter')}"),
            ("run", self.config.title),
            ("ranks", f"{self.ranks:,}"),
            ("global batch", plural(plan.global_batch, "image")),
            ("micro batch", f"{plural(plan.micro_batch, 'image')} per rank{accumulation}"),
            ("steps per epoch", f"{float(plan.steps_per_epoch):,.2f}"),
            (
                "length",
                f"{plural(plan.last_step, 'step')}, {plan.epoch(plan.last_step):.2f} epochs",
            ),
            ("learning rate", describe_rate(self.config, plan)),
            *self._staging(),
        ]

    def warnings(self, *, gpus: int, elsewhere: bool = False) -> list[str]:
        """Return likely mistakes, for ranks on GPUs or, without `gpus`, on CPUs.

        If they start `elsewhere`, their GPUs are unknown, and their processor may be another.
        """
        slow = ""
        if not (gpus and elsewhere):
            device = torch.device("cuda" if gpus else "cpu")
            slow = slow_precision(self.config.train.precision, device)
        if slow and elsewhere:
            slow += " (judged by this machine; the nodes may differ)"
        return [*doubts(self.config, self.plan), *([slow] if slow else [])]

    def _staging(self) -> list[tuple[str, str]]:
        if self.config.data.stage is None:
            return []
        amount = size(staged_bytes(self.split))
        return [("staging", f"{amount} per node, in {stage_root(self.config.data, self.split)}")]


def count_gpus() -> int:
    """Return how many GPUs this process can see."""
    return torch.cuda.device_count()


def check(config: Config, *, ranks: int, like: Preflight | None = None) -> Preflight:
    """Check dataset, files, batch and network; a dataset that `like` has checked is not repeated.

    Raises `ValueError` for the first mistake.
    """
    expect_usable_store(config.tracking)
    known = like.split if like and like.config.data == config.data else None
    split = known or open_split(config.data)
    plan = make_plan(config, samples=len(split.train), world_size=ranks)
    if known is None:
        expect_files(config.data, split)  # the originals: staging happens on the nodes
        if config.data.stage:
            stage_root(config.data, split)
    classes = len(split.train.manifest.classes)
    parameters = count_parameters(build_shapes(config.model, classes=classes))
    return Preflight(config, ranks, split, plan, parameters)


def check_machine(config: Config, *, gpus: int) -> None:
    """Raise `ValueError` if this machine lacks something that the configuration needs."""
    loader = config.data.loader
    if isinstance(loader, Dali) and loader.decode == "mixed" and gpus == 0:
        raise ValueError(
            "data.loader.decode=mixed decodes on GPUs, but the ranks have none on this machine;"
            " use data.loader.decode=auto, or at most as many ranks as GPUs"
        )
    if config.train.compile is True and not any(map(shutil.which, COMPILERS)):
        raise ValueError(
            f"train.compile=true needs a C++ compiler, but none of {', '.join(COMPILERS)} is on"
            " PATH; install one, or use train.compile=false"
        )


def describe_rate(config: Config, plan: Plan) -> str:
    """Describe the learning-rate schedule."""
    schedule, optim = config.schedule, config.optim
    peak = peak_rate(optim, plan.global_batch)
    scaled = f" = {optim.lr:g} x {plan.global_batch}/{optim.lr_batch}" if optim.lr_batch else ""
    warmup = warmup_steps(schedule, plan.steps_per_epoch)
    rise = ""
    if warmup:
        rise = f", after {plural(warmup, 'step')} of warm-up from {schedule.warmup_start * peak:g}"
    match schedule:
        case StepDecay(milestones_epochs=None, milestones_steps=steps):
            fall = f"x {schedule.factor:g} after steps {', '.join(map(str, steps or ()))}"
        case StepDecay(milestones_epochs=epochs):
            fall = f"x {schedule.factor:g} after epochs {', '.join(f'{e:g}' for e in epochs or ())}"
        case Cosine(end=end):
            fall = f"cosine to {end * peak:g}"
        case Polynomial(end=end, power=power):
            fall = f"polynomial of power {power:g} to {end * peak:g}"
    return f"peak {peak:g}{scaled}{rise}, then {fall}"
