"""What an attempt leaves behind, and how its end is read from that."""

from dataclasses import replace
from pathlib import Path

import pytest

from launch.slurm.records.attempt import Attempt, LastWords
from launch.slurm.records.history import HISTORY, append_outcome, read_history
from launch.slurm.supervise.outcome import Circumstances, describe
from launch.slurm.supervise.rank import interface_of, own_address, rank_variables
from launch.slurm.supervise.restart_policy import Outcome
from launch.slurm.supervise.supervisor import CurrentJob
from pipeline.distributed.world import CORES, World
from pipeline.runs.fence import OWNER
from pipeline.runs.find import CANCELLED
from pipeline.runs.folder import RESULT
from pipeline.system.exit_codes import HUNG, STOPPED

USUAL = Circumstances(code=1, seconds=1.0, node_lost=False, asked=False, at_limit=False)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    begun = Attempt(tmp_path, "5.0.1")
    begun.begin({"n1": "10.0.0.1", "n2": "10.0.0.2"})
    return begun


def leave(attempt: Attempt, rank: int, code: int, error: str = "", at: float = 0.0) -> None:
    attempt.leave(LastWords(rank, f"n{rank + 1}", at, code, error, traceback=f"Traceback {rank}\n"))


def test_beginning_takes_the_run_over_and_points_to_the_newest_logs(attempt: Attempt) -> None:
    assert (attempt.run_dir / OWNER).read_text() == "5.0.1"
    later = Attempt(attempt.run_dir, "5.1.0")
    later.begin({"n1": "10.0.0.1"})
    assert (attempt.run_dir / OWNER).read_text() == "5.1.0"
    assert (attempt.run_dir / "logs" / "latest").resolve() == later.logs
    assert attempt.addresses() == {"n1": "10.0.0.1", "n2": "10.0.0.2"}


def test_the_first_failure_that_is_no_echo_of_another_is_told(attempt: Attempt) -> None:
    leave(attempt, 0, 1, "RuntimeError: Connection closed by peer [10.0.0.2]:4711", at=1.0)
    leave(attempt, 1, 1, "KeyError: 'x'", at=2.0)
    leave(attempt, 2, 1, "KeyError: 'y'", at=3.0)
    outcome = describe(attempt, 3, USUAL)
    assert (outcome.ending, outcome.error, outcome.node) == ("crashed", "KeyError: 'x'", "n2")
    assert outcome.log == str(attempt.log(1))
    assert "Traceback 1" in outcome.report
    assert "Traceback 0" not in outcome.report


def test_a_rank_that_left_no_word_is_told_with_the_end_of_its_log(attempt: Attempt) -> None:
    leave(attempt, 0, 1, "RuntimeError: Connection closed by peer")
    attempt.log(1).write_text("\n".join(f"line {number}" for number in range(100)))
    outcome = describe(attempt, 2, replace(USUAL, code=137))
    assert (outcome.ending, outcome.error) == ("crashed", "")
    assert outcome.log == str(attempt.log(1))
    assert "rank 1 left no word; exit code 137" in outcome.report
    assert "line 99" in outcome.report
    assert "line 1\n" not in outcome.report


@pytest.mark.parametrize(
    ("circumstances", "ending"),
    [
        (replace(USUAL, code=0), "stopped"),
        (replace(USUAL, code=0, at_limit=True), "time limit"),
        (replace(USUAL, code=STOPPED), "stopped"),
        (replace(USUAL, code=137), "crashed"),
        (replace(USUAL, code=137, node_lost=True), "node lost"),
        (replace(USUAL, code=137, asked=True), "stopped"),
        (replace(USUAL, code=HUNG), "crashed"),
        (replace(USUAL, code=2), "mistake"),
    ],
)
def test_the_ending_follows_from_codes_and_circumstances(
    attempt: Attempt, circumstances: Circumstances, ending: str
) -> None:
    leave(attempt, 0, STOPPED)
    assert describe(attempt, 2, circumstances).ending == ending


def test_a_result_or_a_cancellation_outweighs_how_the_ranks_ended(attempt: Attempt) -> None:
    (attempt.run_dir / CANCELLED).touch()
    assert describe(attempt, 2, USUAL).ending == "cancelled"
    (attempt.run_dir / RESULT).touch()
    assert describe(attempt, 2, USUAL).ending == "done"


def test_the_history_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    outcomes = [Outcome("1.0.0", "crashed", 10, "E: é\n", "report"), Outcome("1.0.1", "done", 20)]
    assert read_history(tmp_path) == []
    append_outcome(tmp_path, outcomes[0])
    append_outcome(tmp_path, outcomes[1])
    assert read_history(tmp_path) == outcomes
    with (tmp_path / HISTORY).open("ab") as file:
        file.write(b'{"token": "1.0.2", "end')
    assert read_history(tmp_path) == outcomes
    append_outcome(tmp_path, outcomes[0])
    assert read_history(tmp_path) == [*outcomes, outcomes[0]]


def test_a_node_alone_meets_itself_and_others_by_the_way_to_them() -> None:
    assert own_address("n1", {"n1": "127.0.1.1"}) == "127.0.0.1"
    assert own_address("n1", {"n1": "127.0.1.1", "n2": "127.0.0.1"}) == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


def test_an_element_of_an_array_does_not_take_the_whole_array_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SLURM gives the element that starts last the array's own number as SLURM_JOB_ID."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "")
    assert CurrentJob.mine().id == "7"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert CurrentJob.mine().id == "7_3"


def test_a_rank_has_the_cores_that_slurm_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_CPUS_PER_TASK": "12",
    }.items():
        monkeypatch.setenv(name, value)
    variables = rank_variables()
    assert (variables["RANK"], variables["LOCAL_RANK"]) == ("5", "1")
    assert (variables["WORLD_SIZE"], variables["LOCAL_WORLD_SIZE"]) == ("8", "4")
    monkeypatch.setenv(CORES, variables[CORES])
    assert World(local_size=4).cpu_threads == 12
