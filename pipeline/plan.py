"""What follows from a configuration, a dataset and a world size: steps, batches, intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.config.schema import Config, StepDecay
from pipeline.optim.build import peak_rate
from pipeline.optim.schedule import (
    Rate,
    Schedule,
    in_steps,
    learning_rate,
    milestones,
    warmup_steps,
)
from pipeline.system.command import plural


@dataclass(frozen=True, slots=True)
class Every:
    """Steps at which something is due: each time `interval` more steps are done, and the last."""

    interval: Fraction
    last: int

    def __contains__(self, step: object) -> bool:
        assert isinstance(step, int)
        return step == self.last or step // self.interval > (step - 1) // self.interval


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, batches, rates and intervals of a run."""

    last_step: int
    samples: int
    global_batch: int
    micro_batch: int
    """Images in one forward pass of a rank: global batch / (ranks x accumulation)."""
    accumulation: int
    rate: Rate
    log: Every
    evaluate: Every
    save: Every

    @property
    def steps_per_epoch(self) -> Fraction:
        return Fraction(self.samples, self.global_batch)

    def epoch(self, step: int) -> float:
        """Return the number of epochs, with its fraction, that are done after `step`."""
        return float(step / self.steps_per_epoch)

    def reports(self, step: int) -> bool:
        """Whether the loss is read at `step`, as it is before each evaluation and save."""
        return step in self.log or step in self.evaluate or step in self.save


def make_plan(config: Config, *, samples: int, world_size: int) -> Plan:
    """Derive the plan; raise `ValueError` if the global batch does not divide over the ranks."""
    train = config.train
    if samples == 0:
        raise ValueError(f"{config.data.dir} has no training images; prepare it again")
    steps_per_epoch = Fraction(samples, train.global_batch)
    last = train.steps or math.ceil(in_steps(train.epochs or 0, steps_per_epoch))

    def every(epochs: float | None, steps: int | None) -> Every:
        interval = Fraction(steps) if steps else in_steps(epochs or 1, steps_per_epoch)
        return Every(max(Fraction(1), interval), last)

    return Plan(
        last_step=last,
        samples=samples,
        global_batch=train.global_batch,
        micro_batch=_micro_batch(config, world_size),
        accumulation=train.accumulation,
        rate=learning_rate(
            config.schedule,
            peak=peak_rate(config.optim, train.global_batch),
            last_step=last,
            steps_per_epoch=steps_per_epoch,
        ),
        log=every(None, train.log_every_steps),
        evaluate=every(config.evaluate.every_epochs, config.evaluate.every_steps),
        save=every(config.checkpoint.every_epochs, config.checkpoint.every_steps),
    )


def doubts(config: Config, plan: Plan) -> list[str]:
    """Return likely mistakes in a plan that could run, with remedies."""
    return [
        *_doubts_of_batch(config, plan),
        *_doubts_of_warmup(config.schedule, plan),
        *_doubts_of_milestones(config.schedule, plan),
        *_doubts_of_lengths(config, plan),
    ]


def _doubts_of_batch(config: Config, plan: Plan) -> list[str]:
    if plan.global_batch <= plan.samples:
        return []
    return [
        f"train.global_batch={plan.global_batch} is more than the {plural(plan.samples, 'image')}"
        f" of {config.data.dir}: one step takes {plan.epoch(1):.3g} epochs; lower it"
    ]


def _doubts_of_warmup(schedule: Schedule, plan: Plan) -> list[str]:
    warmup, last = warmup_steps(schedule, plan.steps_per_epoch), plan.last_step
    key = "warmup_epochs" if schedule.warmup_steps is None else "warmup_steps"
    found = f"schedule.{key}={getattr(schedule, key) or 0:g}"
    if warmup >= last:
        peak = "never reaches its peak" if warmup > last else "reaches its peak in the last step"
        return [
            f"{found} is a warm-up of {plural(warmup, 'step')} in a run of {last:,}: the learning"
            f" rate {peak}; shorten the warm-up, or train longer"
        ]
    if warmup == 0 and schedule.warmup_epochs:
        return [f"{found} is less than a step: there is no warm-up; lengthen it, or set it to 0"]
    return []


def _doubts_of_milestones(schedule: Schedule, plan: Plan) -> list[str]:
    if not isinstance(schedule, StepDecay):
        return []
    key = "milestones_steps" if schedule.milestones_epochs is None else "milestones_epochs"
    written: Sequence[float] = getattr(schedule, key)
    steps = milestones(schedule, plan.steps_per_epoch)
    warmup = warmup_steps(schedule, plan.steps_per_epoch)
    late = [each for each, step in zip(written, steps, strict=True) if step >= plan.last_step]
    early = [each for each, step in zip(written, steps, strict=True) if step <= warmup]
    sentences: list[str] = []
    if late:
        end = f"{plan.last_step:,} steps, {plan.epoch(plan.last_step):.4g} epochs"
        sentences.append(
            f"schedule.{key}: {_listed(late)} is not before the end of the run ({end}): the"
            " learning rate does not drop there; move it, or train longer"
        )
    if early:
        sentences.append(
            f"schedule.{key}: {_listed(early)} is not after the warm-up ({plural(warmup, 'step')}):"
            " the learning rate drops as soon as it ends; move one of them"
        )
    return sentences


def _doubts_of_lengths(config: Config, plan: Plan) -> list[str]:
    """Return warnings about lengths below one step, and about an average that is never updated."""
    lengths = {
        "train.epochs": config.train.epochs,
        "evaluate.every_epochs": config.evaluate.every_epochs,
        "checkpoint.every_epochs": config.checkpoint.every_epochs,
    }
    step = f"{plan.epoch(1):.3g} epochs"
    sentences = [
        f"{key}={epochs:g} is less than a step ({step}) and counts as one; raise it"
        for key, epochs in lengths.items()
        if epochs and in_steps(epochs, plan.steps_per_epoch) < 1
    ]
    ema = config.train.ema
    if ema and ema.every_steps > plan.last_step:
        sentences.append(
            f"train.ema.every_steps={ema.every_steps} is more than the"
            f" {plural(plan.last_step, 'step')} of the run: the average, which is evaluated, stays"
            " at the initial weights; lower it"
        )
    return sentences


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _micro_batch(config: Config, world_size: int) -> int:
    batch, accumulation = config.train.global_batch, config.train.accumulation
    group = config.model.batch_norm_group or 1
    share = world_size * accumulation * group
    if batch % share:
        groups = f" x model.batch_norm_group {group}" if group > 1 else ""
        raise ValueError(
            f"train.global_batch={batch} does not divide over {plural(world_size, 'rank')}"
            f" x train.accumulation {accumulation}{groups};"
            f" try {' or '.join(str(n * share) for n in (batch // share, batch // share + 1) if n)}"
        )
    return batch // (world_size * accumulation)
