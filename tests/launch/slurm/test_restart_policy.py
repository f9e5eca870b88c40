"""What follows from how attempts ended: see `launch/slurm/supervise/restart_policy.py`."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from launch.slurm.supervise.restart_policy import (
    Bounds,
    Cancel,
    Done,
    GiveUp,
    Outcome,
    Requeue,
    Restart,
    Verdict,
    decide,
)

UNBOUND = Bounds(attempts_without_progress=3, time_limits=None, preemptions=None)


def after(*endings: tuple[str, int] | tuple[str, int, str], bounds: Bounds = UNBOUND) -> Verdict:
    """Decide after attempts that ended so, each with its newest checkpoint and its error."""
    history = [
        Outcome(f"1.0.{number}", ending, step, *error)  # pyright: ignore[reportArgumentType]
        for number, (ending, step, *error) in enumerate(endings)
    ]
    return decide(history, bounds)


def test_what_is_done_or_cancelled_does_not_come_back() -> None:
    assert after(("crashed", 10), ("done", 100)) == Done()
    assert after(("cancelled", 50)) == Cancel()


def test_a_mistake_is_not_tried_again() -> None:
    assert isinstance(after(("mistake", 0)), GiveUp)


def test_preemptions_and_time_limits_are_counted_apart_and_without_bound() -> None:
    assert after(*[("stopped", step) for step in range(100)]) == Requeue("stopped")
    assert after(*[("time limit", step) for step in range(1, 100)]) == Requeue("time limit")
    two = replace(UNBOUND, time_limits=2)
    assert isinstance(after(*[("stopped", 5)] * 9, ("time limit", 6), bounds=two), Requeue)
    limits = [("time limit", step) for step in (1, 2, 3)]
    assert isinstance(after(*limits[:2], bounds=two), Requeue)
    assert isinstance(after(*limits, bounds=two), GiveUp)


def test_a_crash_restarts_in_the_same_job_as_long_as_there_is_progress() -> None:
    crashes = [("crashed", step, f"error {step}") for step in range(10, 200, 10)]
    assert isinstance(after(*crashes), Restart)


def test_attempts_without_a_new_checkpoint_are_given_up() -> None:
    first = ("crashed", 10)
    assert isinstance(after(first), Restart)
    assert isinstance(after(first, ("node lost", 10)), Restart)
    assert isinstance(after(first, ("node lost", 10), ("crashed", 10)), Restart)
    verdict = after(first, *[("crashed", 10)] * 3)
    assert isinstance(verdict, GiveUp)
    assert "3 attempts in a row have saved no new checkpoint" in verdict.reason
    assert isinstance(after(*[("crashed", 0)] * 3), GiveUp)
    assert isinstance(after(*[("time limit", 0)] * 3), GiveUp)


def test_being_stopped_in_between_is_no_sign_of_being_stuck() -> None:
    assert isinstance(after(("crashed", 0), ("stopped", 0), ("crashed", 0)), Restart)
    endings = [("crashed", 0), ("stopped", 0), ("crashed", 0), ("stopped", 0), ("crashed", 0)]
    assert isinstance(after(*endings), GiveUp)


def test_the_same_error_twice_at_the_same_step_is_given_up_at_once() -> None:
    error = "ValueError: no (rank 3, after step 40 on n1)"
    assert isinstance(after(("crashed", 40, error), ("crashed", 40, error)), GiveUp)
    assert isinstance(after(("crashed", 40, error), ("crashed", 40, "another")), Restart)
    assert isinstance(after(("crashed", 40, error), ("crashed", 50, error)), Restart)
    assert isinstance(after(("crashed", 40, ""), ("crashed", 40, "")), Restart)


@given(st.lists(st.sampled_from(["crashed", "node lost", "time limit"]), min_size=3))
def test_no_run_goes_on_without_ever_saving_a_checkpoint(endings: list[str]) -> None:
    assert isinstance(after(*[(ending, 0) for ending in endings]), GiveUp)
