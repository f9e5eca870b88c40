"""What follows from a configuration: steps, batches, intervals and the rate of each step."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import (
    Checkpoint,
    Config,
    Cosine,
    Data,
    Ema,
    Evaluate,
    Polynomial,
    Sgd,
    StepDecay,
    Train,
    model_named,
)
from pipeline.optim.schedule import Rate, Schedule, learning_rate
from pipeline.plan import Every, doubts, make_plan

quick = settings(max_examples=60, deadline=None)


def config(schedule: Schedule | None = None, **changes: Any) -> Config:
    whole: dict[str, Any] = {
        "name": "test",
        "data": Data(dir=Path("somewhere")),
        "model": model_named("resnet50"),
        "train": Train(epochs=10, global_batch=64),
        "optim": Sgd(lr=0.1),
        "schedule": schedule or Cosine(),
    }
    return Config(**whole | changes)


def rate(schedule: Schedule, *, last: int, steps_per_epoch: Fraction = Fraction(10)) -> Rate:
    return learning_rate(schedule, peak=0.8, last_step=last, steps_per_epoch=steps_per_epoch)


# ---------------------------------------------------------------------------------- intervals


@quick
@given(st.fractions(1, 30, max_denominator=50), st.integers(1, 200))
def test_every_is_due_after_each_interval_and_at_the_end(interval: Fraction, last: int) -> None:
    every = Every(interval, last)
    hits = [step for step in range(1, last + 1) if step in every]
    complete = {math.ceil(count * interval) for count in range(1, last + 1)}
    assert hits == sorted({step for step in complete if step < last} | {last})


@quick
@given(st.integers(1, 50), st.integers(1, 200))
def test_every_of_whole_steps_is_modulo(interval: int, last: int) -> None:
    every = Every(Fraction(interval), last)
    for step in range(1, last + 1):
        assert (step in every) == (step % interval == 0 or step == last)


@quick
@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 9))
def test_what_is_due_each_epoch_happens_once_per_epoch(samples: int, batch: int, n: int) -> None:
    """Even if the batch does not divide the dataset, or a step contains several epochs."""
    plan = make_plan(
        config(train=Train(epochs=n, global_batch=batch)), samples=samples, world_size=1
    )
    assert plan.last_step == -(-n * samples // batch)
    hits = [step for step in range(1, plan.last_step + 1) if step in plan.save]
    assert len(hits) == min(n, plan.last_step)
    assert hits == [step for step in range(1, plan.last_step + 1) if step in plan.evaluate]
    if samples >= batch:
        assert [math.floor(plan.epoch(step)) for step in hits] == list(range(1, n + 1))


@pytest.mark.parametrize("epochs", [0.1, 0.2, 0.3, 0.7, 1.1, 2.3, 89.9])
def test_tenths_of_an_epoch_are_tenths(epochs: float) -> None:
    """The binary number nearest to 0.1 is above a tenth, and must not add a step."""
    tenths = round(epochs * 10)
    parts = {"evaluate": Evaluate(every_epochs=epochs), "checkpoint": Checkpoint(every_epochs=0.1)}
    train = Train(epochs=epochs, global_batch=64)
    plan = make_plan(config(train=train, **parts), samples=640, world_size=1)
    assert plan.last_step == tenths
    assert plan.evaluate == Every(Fraction(tenths), tenths)
    assert all(step in plan.save for step in range(1, tenths + 1))


def test_intervals_in_steps_and_in_epochs() -> None:
    parts = {"evaluate": Evaluate(every_steps=7), "checkpoint": Checkpoint(every_epochs=2.5)}
    train = Train(steps=100, global_batch=64, log_every_steps=10)
    plan = make_plan(config(train=train, **parts), samples=640, world_size=1)
    assert plan.last_step == 100
    assert plan.steps_per_epoch == 10
    assert (plan.evaluate.interval, plan.save.interval, plan.log.interval) == (7, 25, 10)
    assert [step for step in range(1, 31) if plan.reports(step)] == [7, 10, 14, 20, 21, 25, 28, 30]
    assert plan.reports(100)
    assert plan.epoch(25) == 2.5


# ----------------------------------------------------------------------------------- schedules


@quick
@given(st.integers(1, 50), st.floats(0, 1), st.sampled_from([StepDecay, Cosine, Polynomial]))
def test_the_warm_up_ends_at_the_peak(warmup: int, start: float, kind: Any) -> None:
    drops = {"milestones_steps": (90,)} if kind is StepDecay else {}
    of = rate(kind(warmup_steps=warmup, warmup_start=start, **drops), last=100)
    rates = [of(step) for step in range(1, warmup + 1)]
    assert rates[0] == pytest.approx(0.8 * (start + (1 - start) / warmup))
    assert rates[-1] == pytest.approx(0.8)
    assert of(warmup + 1) == pytest.approx(0.8)
    rises = [after - before for before, after in pairwise(rates)]
    assert rises == pytest.approx([0.8 * (1 - start) / warmup] * (warmup - 1))


@pytest.mark.parametrize("kind", [Cosine, Polynomial])
@pytest.mark.parametrize("end", [0.0, 0.25])
@pytest.mark.parametrize("warmup", [0, 20])
def test_smooth_decays_fall_from_the_peak_to_the_end(kind: Any, end: float, warmup: int) -> None:
    last = 100
    of = rate(kind(end=end, warmup_steps=warmup), last=last)
    rates = [of(step) for step in range(warmup + 1, last + 1)]
    assert rates[0] == 0.8
    assert rates == sorted(rates, reverse=True)
    assert of(last + 1) == pytest.approx(0.8 * end)
    assert 0.8 * end < of(last) < 0.8 * end + 0.01


def test_cosine_and_polynomial_half_way() -> None:
    assert rate(Cosine(end=0.1), last=100)(51) == pytest.approx(0.8 * 0.55)
    assert rate(Polynomial(power=1), last=100)(51) == pytest.approx(0.4)
    assert rate(Polynomial(power=2), last=100)(51) == pytest.approx(0.2)
    assert rate(Polynomial(power=2, end=0.1), last=100)(51) == pytest.approx(0.8 * 0.325)


def test_milestones_take_effect_after_their_step() -> None:
    of = rate(StepDecay(milestones_steps=(32_000, 48_000)), last=64_000)
    assert [of(step) for step in (1, 32_000)] == [0.8, 0.8]
    assert [of(step) for step in (32_001, 48_000)] == pytest.approx([0.08, 0.08])
    assert [of(step) for step in (48_001, 64_000)] == pytest.approx([0.008, 0.008])


@quick
@given(st.integers(1, 30), st.integers(0, 3), st.integers(1, 200))
def test_epochs_and_steps_mean_the_same(steps_per_epoch: int, warmup: int, step: int) -> None:
    def of(schedule: Schedule) -> float:
        return rate(schedule, last=200, steps_per_epoch=Fraction(steps_per_epoch))(step)

    in_steps = warmup * steps_per_epoch
    assert of(Cosine(warmup_epochs=warmup)) == of(Cosine(warmup_steps=in_steps))
    assert of(StepDecay(milestones_epochs=(1, 2.5), factor=0.5)) == of(
        StepDecay(milestones_steps=(steps_per_epoch, round(2.5 * steps_per_epoch)), factor=0.5)
    )


@pytest.mark.parametrize("warmup", [{"warmup_steps": 100}, {"warmup_epochs": 10.0}])
def test_a_run_shorter_than_its_warm_up_never_reaches_the_peak(warmup: dict[str, Any]) -> None:
    short, long = rate(Cosine(**warmup), last=30), rate(Cosine(**warmup), last=200)
    assert [short(step) for step in range(1, 31)] == [long(step) for step in range(1, 31)]


def test_lr_batch_scales_the_peak_with_the_batch() -> None:
    def peak(batch: int, lr_batch: int | None) -> float:
        train, optim = Train(epochs=1, global_batch=batch), Sgd(lr=0.1, lr_batch=lr_batch)
        return make_plan(config(train=train, optim=optim), samples=640, world_size=1).rate(1)

    assert peak(64, None) == peak(128, None) == 0.1
    assert peak(256, 256) == 0.1
    assert peak(64, 256) == pytest.approx(0.025)


# ------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    ("batch", "world", "accumulation", "group", "remedy"),
    [
        (100, 8, 1, None, "try 96 or 104"),
        (100, 8, 2, None, "try 96 or 112"),
        (96, 4, 1, 32, "try 128"),
        (4, 8, 1, None, "try 8"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_a_remedy(
    batch: int, world: int, accumulation: int, group: int | None, remedy: str
) -> None:
    def plan(global_batch: int) -> Any:
        train = Train(epochs=1, global_batch=global_batch, accumulation=accumulation)
        model = model_named("resnet50", batch_norm_group=group)
        return make_plan(config(train=train, model=model), samples=1000, world_size=world)

    with pytest.raises(ValueError, match=f"global_batch={batch} does not divide.*; {remedy}$"):
        plan(batch)
    for number in remedy.removeprefix("try ").split(" or "):
        assert plan(int(number)).micro_batch * world * accumulation == int(number)


def test_the_world_size_changes_only_the_micro_batch() -> None:
    def plan(world: int) -> tuple[int, tuple[Any, ...], list[float]]:
        train = Train(epochs=3, global_batch=240, accumulation=2)
        made = make_plan(config(train=train), samples=5000, world_size=world)
        rest = (made.last_step, made.samples, made.global_batch, made.accumulation)
        intervals = (made.log, made.evaluate, made.save)
        rates = [made.rate(step) for step in range(1, made.last_step + 1)]
        return made.micro_batch, rest + intervals, rates

    alone = plan(1)
    for world in (2, 3, 4, 5, 8, 120):
        micro, rest, rates = plan(world)
        assert micro == 120 // world
        assert (rest, rates) == alone[1:]


def test_a_dataset_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="somewhere has no training images"):
        make_plan(config(), samples=0, world_size=1)


# ---------------------------------------------------------------------------------- doubts


def doubts_of(schedule: Schedule | None = None, samples: int = 640, **changes: Any) -> list[str]:
    """Return the doubts about a run of 100 steps, 10 of them an epoch, unless `changes` differ."""
    whole = config(schedule, **{"train": Train(epochs=10, global_batch=64)} | changes)
    return doubts(whole, make_plan(whole, samples=samples, world_size=1))


def test_a_usual_plan_raises_no_doubts() -> None:
    assert doubts_of(Cosine(warmup_epochs=5)) == []
    assert doubts_of(StepDecay(milestones_epochs=(3, 6, 9.9), warmup_steps=29)) == []
    assert doubts_of(StepDecay(milestones_steps=(1, 99))) == []
    assert (
        doubts_of(Polynomial(warmup_steps=99), samples=64, train=Train(steps=100, global_batch=64))
        == []
    )


@pytest.mark.parametrize(
    ("schedule", "start"),
    [
        (Cosine(warmup_epochs=12), "schedule.warmup_epochs=12 is a warm-up of 120 steps in a run"),
        (Polynomial(warmup_steps=101), "schedule.warmup_steps=101 is a warm-up of 101 steps in a"),
        (Cosine(warmup_epochs=0.01), "schedule.warmup_epochs=0.01 is less than a step"),
    ],
)
def test_a_warm_up_that_does_not_fit_the_run(schedule: Schedule, start: str) -> None:
    (doubt,) = doubts_of(schedule)
    assert doubt.startswith(start)
    assert ("never reaches its peak" in doubt) == (" run of 100" in doubt)


def test_a_warm_up_as_long_as_the_run_reaches_the_peak_at_its_end() -> None:
    assert [
        "reaches its peak in the last step" in each for each in doubts_of(Cosine(warmup_steps=100))
    ] == [True]


@pytest.mark.parametrize(
    ("milestones", "late"),
    [
        ({"milestones_epochs": (3, 10)}, "schedule.milestones_epochs: 10 is not before the end"),
        (
            {"milestones_epochs": (5, 10.5, 90)},
            "schedule.milestones_epochs: 10.5, 90 is not before",
        ),
        (
            {"milestones_steps": (100,)},
            "schedule.milestones_steps: 100 is not before the end of the",
        ),
    ],
)
def test_milestones_beyond_the_end(milestones: dict[str, Any], late: str) -> None:
    """The rate drops after a milestone, so one at the last step is too late."""
    (doubt,) = doubts_of(StepDecay(**milestones))
    assert doubt.startswith(late)
    assert "(100 steps, 10 epochs)" in doubt


def test_milestones_within_the_warm_up() -> None:
    (doubt,) = doubts_of(StepDecay(milestones_epochs=(2, 5), warmup_epochs=2))
    assert doubt.startswith("schedule.milestones_epochs: 2 is not after the warm-up (20 steps)")


def test_a_batch_larger_than_the_dataset() -> None:
    (doubt,) = doubts_of(samples=32)
    assert doubt == (
        "train.global_batch=64 is more than the 32 images of somewhere: one step takes 2 epochs;"
        " lower it"
    )
    assert doubts_of(samples=64) == []


def test_lengths_of_less_than_a_step() -> None:
    short = {"evaluate": Evaluate(every_epochs=0.05), "checkpoint": Checkpoint(every_epochs=0.09)}
    found = doubts_of(train=Train(epochs=0.01, global_batch=64), **short)
    keys = ("train.epochs=0.01", "evaluate.every_epochs=0.05", "checkpoint.every_epochs=0.09")
    ending = "is less than a step (0.1 epochs) and counts as one; raise it"
    assert found == [f"{key} {ending}" for key in keys]


def test_an_average_that_is_never_updated() -> None:
    (doubt,) = doubts_of(train=Train(epochs=10, global_batch=64, ema=Ema(every_steps=101)))
    assert doubt.startswith("train.ema.every_steps=101 is more than the 100 steps of the run")
