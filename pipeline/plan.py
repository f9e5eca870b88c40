"""What follows from a configuration, a dataset and a world size: steps, batches, intervals."""

import math
from dataclasses import dataclass
from fractions import Fraction

from pipeline.config.schema import Config
from pipeline.optim.build import peak_rate
from pipeline.optim.schedule import Rate, in_steps, learning_rate
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
