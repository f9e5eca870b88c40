"""The learning rate as a pure function of the step: it has no state to save."""

import math
from collections.abc import Callable
from fractions import Fraction

from pipeline.config.schema import Cosine, Polynomial, StepDecay

Schedule = StepDecay | Cosine | Polynomial
Rate = Callable[[int], float]
"""Step number (from 1) to learning rate."""


def learning_rate(
    schedule: Schedule, *, peak: float, last_step: int, steps_per_epoch: Fraction
) -> Rate:
    """Return the rate of each step: a linear warm-up to `peak`, then the schedule's decay.

    A run shorter than its warm-up never reaches `peak`.
    """
    warmup = warmup_steps(schedule, steps_per_epoch)
    decay = _decay(schedule, warmup, last_step, steps_per_epoch)

    def rate(step: int) -> float:
        if step <= warmup:
            return peak * (schedule.warmup_start + (1 - schedule.warmup_start) * step / warmup)
        return peak * decay(step)

    return rate


def warmup_steps(schedule: Schedule, steps_per_epoch: Fraction) -> int:
    """Return the number of steps over which the rate first rises."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return round(in_steps(schedule.warmup_epochs or 0, steps_per_epoch))


def in_steps(epochs: float, steps_per_epoch: Fraction) -> Fraction:
    """Convert epochs to steps; 0.1 means exactly a tenth, not the nearest binary number."""
    return Fraction(str(epochs)) * steps_per_epoch


def _decay(schedule: Schedule, warmup: int, last: int, steps_per_epoch: Fraction) -> Rate:
    """Return the factor on the peak rate, for steps after the warm-up."""
    match schedule:
        case StepDecay():
            drops = milestones(schedule, steps_per_epoch)
            return lambda step: schedule.factor ** sum(drop < step for drop in drops)
        case Cosine(end=end):
            return lambda step: (
                end + (1 - end) * (1 + math.cos(math.pi * _elapsed(step, warmup, last))) / 2
            )
        case Polynomial(end=end, power=power):
            return lambda step: end + (1 - end) * (1 - _elapsed(step, warmup, last)) ** power


def _elapsed(step: int, warmup: int, last: int) -> float:
    return (step - 1 - warmup) / (last - warmup)


def milestones(schedule: StepDecay, steps_per_epoch: Fraction) -> tuple[int, ...]:
    """Return the steps after which the rate drops."""
    if schedule.milestones_steps is not None:
        return schedule.milestones_steps
    epochs = schedule.milestones_epochs or ()
    return tuple(round(in_steps(epoch, steps_per_epoch)) for epoch in epochs)
