"""Whether a run starts again follows from how its attempts ended."""

from dataclasses import replace
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from launch.slurm.records.history import Outcome
from launch.slurm.supervise.restart_policy import (
    Avoid,
    Cancel,
    Decision,
    Done,
    GiveUp,
    Requeue,
    Restart,
    RestartLimits,
    bad_nodes,
    decide,
)

NUMBERS = count()
UNLIMITED = RestartLimits(attempts_without_progress=3, time_limits=None, preemptions=None)


def after(
    *outcomes: tuple[str, int] | tuple[str, int, str], limits: RestartLimits = UNLIMITED
) -> Decision:
    """Decide after attempts with these outcomes: kind, newest checkpoint and error."""
    history = [
        Outcome(f"1.0.{number}", kind, step, *error)  # pyright: ignore[reportArgumentType]
        for number, (kind, step, *error) in enumerate(outcomes)
    ]
    return decide(history, limits)


def test_a_finished_or_cancelled_run_does_not_start_again() -> None:
    assert after(("crashed", 10), ("done", 100)) == Done()
    assert after(("cancelled", 50)) == Cancel()


def test_a_mistake_is_not_retried() -> None:
    assert isinstance(after(("mistake", 0)), GiveUp)


def test_preemptions_and_time_limits_are_counted_apart_and_unlimited() -> None:
    assert after(*[("stopped", step) for step in range(100)]) == Requeue("stopped")
    assert after(*[("time limit", step) for step in range(1, 100)]) == Requeue("time limit")
    two = replace(UNLIMITED, time_limits=2)
    assert isinstance(after(*[("stopped", 5)] * 9, ("time limit", 6), limits=two), Requeue)
    reached = [("time limit", step) for step in (1, 2, 3)]
    assert isinstance(after(*reached[:2], limits=two), Requeue)
    assert isinstance(after(*reached, limits=two), GiveUp)


def test_crashes_restart_inside_the_job_as_long_as_there_is_progress() -> None:
    crashes = [("crashed", step, f"error {step}") for step in range(10, 200, 10)]
    assert isinstance(after(*crashes), Restart)


def test_a_run_without_new_checkpoints_is_given_up() -> None:
    first = ("crashed", 10)
    assert isinstance(after(first), Restart)
    assert isinstance(after(first, ("node lost", 10)), Restart)
    assert isinstance(after(first, ("node lost", 10), ("crashed", 10)), Restart)
    decision = after(first, *[("crashed", 10)] * 3)
    assert isinstance(decision, GiveUp)
    assert "3 attempts in a row saved no new checkpoint" in decision.reason
    assert isinstance(after(*[("crashed", 0)] * 3), GiveUp)
    too_short = after(*[("time limit", 0)] * 3)
    assert isinstance(too_short, GiveUp)
    assert "raise slurm.time_limit" in too_short.reason


def test_a_stop_between_crashes_does_not_count_as_one() -> None:
    assert isinstance(after(("crashed", 0), ("stopped", 0), ("crashed", 0)), Restart)
    outcomes = [("crashed", 0), ("stopped", 0), ("crashed", 0), ("stopped", 0), ("crashed", 0)]
    assert isinstance(after(*outcomes), GiveUp)


def test_the_same_error_twice_at_the_same_step_is_given_up() -> None:
    error = "ValueError: no (rank 3, after step 40 on n1)"
    assert isinstance(after(("crashed", 40, error), ("crashed", 40, error)), GiveUp)
    assert isinstance(after(("crashed", 40, error), ("crashed", 40, "another")), Restart)
    assert isinstance(after(("crashed", 40, error), ("crashed", 50, error)), Restart)
    assert isinstance(after(("crashed", 40, ""), ("crashed", 40, "")), Restart)


def on(node: str, kind: str = "crashed", start: str = "1.0", error: str = "E") -> Outcome:
    return Outcome(f"{start}.{next(NUMBERS)}", kind, 0, error, node=node)  # pyright: ignore[reportArgumentType]


def test_a_failure_that_repeats_on_one_node_moves_the_job_away_from_it_once() -> None:
    twice = [on("n2"), on("n2")]
    decision = decide(twice, UNLIMITED)
    assert isinstance(decision, Avoid)
    assert decision.node == "n2"
    assert isinstance(decide([*twice, on("n4", start="1.1")], UNLIMITED), GiveUp)
    assert isinstance(decide([*twice, on("n2", start="1.1")], UNLIMITED), GiveUp)


def test_failures_on_several_nodes_or_on_none_are_not_the_fault_of_a_node() -> None:
    assert isinstance(decide([on("n1"), on("n2")], UNLIMITED), GiveUp)
    assert isinstance(decide([on(""), on("")], UNLIMITED), GiveUp)
    killed = [on(node, error="") for node in ("n2", "n2", "n2")]
    assert isinstance(decide(killed, UNLIMITED), Avoid)
    killed = [on(node, error="") for node in ("n1", "n2", "n2")]
    assert isinstance(decide(killed, UNLIMITED), GiveUp)


def test_bad_nodes_count_once_for_each_start_of_the_job() -> None:
    first = [on("n2", "bad node"), on("n3", "bad node"), on("n4", "bad node")]
    assert isinstance(decide(first, UNLIMITED), Restart)
    assert bad_nodes(first, "1.0") == ["n2", "n3", "n4"]
    assert bad_nodes(first, "1.1") == []
    again = [*first, on("n2", "bad node", "1.1")]
    assert isinstance(decide(again, UNLIMITED), Restart)
    assert isinstance(decide([*again, on("n2", "bad node", "1.2")], UNLIMITED), GiveUp)


def test_a_run_is_not_given_up_as_long_as_leaving_bad_nodes_leads_to_others() -> None:
    others = [on(f"n{number}", "bad node", f"1.{number}") for number in range(9)]
    assert isinstance(decide(others, UNLIMITED), Restart)
    same = [on("n2", "bad node", f"1.{number}") for number in range(3)]
    assert isinstance(decide(same[:2], UNLIMITED), Restart)
    assert isinstance(decide(same, UNLIMITED), GiveUp)
    assert isinstance(decide([*others, *same[:2], on("n3", "bad node", "1.5")], UNLIMITED), GiveUp)


@given(st.lists(st.sampled_from(["crashed", "node lost", "time limit"]), min_size=3))
def test_a_run_that_never_saves_is_given_up(kinds: list[str]) -> None:
    assert isinstance(after(*[(kind, 0) for kind in kinds]), GiveUp)
