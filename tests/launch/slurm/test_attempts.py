"""What an attempt leaves behind, and the outcome that follows from it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from launch.slurm.api.current_job import CurrentJob
from launch.slurm.records.attempt import Attempt, RankExit
from launch.slurm.records.history import HISTORY, Outcome, append_outcome, read_history
from launch.slurm.records.submission import JobLayout
from launch.slurm.supervise import supervisor
from launch.slurm.supervise.outcome import Circumstances, outcome_of
from launch.slurm.supervise.rank import interface_of, own_address, rank_variables
from launch.slurm.supervise.srun import JobStep
from launch.slurm.supervise.srun_messages import TaskFailure, task_failures
from launch.slurm.supervise.supervisor import await_end
from pipeline.distributed.world import CORES, World
from pipeline.runs.fence import OWNER
from pipeline.runs.find import CANCELLED
from pipeline.runs.folder import RESULT
from pipeline.system.exit_codes import HUNG, STOPPED
from tests.support.small_disk import small_disk

NOT_FOUND = "slurmstepd-n2: error: execve(): /venv/bin/python: No such file or directory\n"
USUAL = Circumstances(code=1, seconds=1.0, node_lost=False, asked=False, at_limit=False)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    started = Attempt(tmp_path, "5.0.1")
    started.begin({"n1": "10.0.0.1", "n2": "10.0.0.2"})
    return started


def end(attempt: Attempt, rank: int, code: int, error: str = "", at: float = 0.0) -> None:
    report = RankExit(rank, f"n{rank + 1}", at, code, error, traceback=f"Traceback {rank}\n")
    attempt.record_exit(report)


def test_a_new_attempt_becomes_the_owner_and_has_the_latest_logs(attempt: Attempt) -> None:
    assert (attempt.run_dir / OWNER).read_text() == "5.0.1"
    later = Attempt(attempt.run_dir, "5.1.0")
    later.begin({"n1": "10.0.0.1"})
    assert (attempt.run_dir / OWNER).read_text() == "5.1.0"
    assert (attempt.run_dir / "logs" / "latest").resolve() == later.logs
    assert attempt.addresses() == {"n1": "10.0.0.1", "n2": "10.0.0.2"}


def test_the_first_failure_that_is_not_a_consequence_is_reported(attempt: Attempt) -> None:
    end(attempt, 0, 1, "RuntimeError: Connection closed by peer [10.0.0.2]:4711", at=1.0)
    end(attempt, 1, 1, "KeyError: 'x'", at=2.0)
    end(attempt, 2, 1, "KeyError: 'y'", at=3.0)
    outcome = outcome_of(attempt, 3, USUAL)
    assert (outcome.kind, outcome.error, outcome.node) == ("crashed", "KeyError: 'x'", "n2")
    assert outcome.log == str(attempt.log(1))
    assert "Traceback 1" in outcome.report
    assert "Traceback 0" not in outcome.report


def test_a_rank_without_a_report_is_reported_with_the_end_of_its_log(attempt: Attempt) -> None:
    end(attempt, 0, 1, "RuntimeError: Connection closed by peer")
    attempt.log(1).write_text("\n".join(f"line {number}" for number in range(100)))
    outcome = outcome_of(attempt, 2, replace(USUAL, code=137))
    assert (outcome.kind, outcome.error) == ("crashed", "")
    assert outcome.log == str(attempt.log(1))
    assert "rank 1 left no report; exit code 137" in outcome.report
    assert "line 99" in outcome.report
    assert "line 1\n" not in outcome.report


@pytest.mark.parametrize(
    ("circumstances", "kind"),
    [
        (replace(USUAL, code=0), "stopped"),
        (replace(USUAL, code=0, at_limit=True), "time limit"),
        (replace(USUAL, code=STOPPED), "stopped"),
        (replace(USUAL, code=137), "crashed"),
        (replace(USUAL, code=137, node_lost=True), "node lost"),
        (replace(USUAL, code=137, asked=True), "stopped"),
        (replace(USUAL, code=HUNG), "crashed"),
        (replace(USUAL, code=2), "crashed"),  # only one rank says so
    ],
)
def test_the_outcome_follows_from_codes_and_circumstances(
    attempt: Attempt, circumstances: Circumstances, kind: str
) -> None:
    end(attempt, 0, STOPPED)
    assert outcome_of(attempt, 2, circumstances).kind == kind


def test_it_is_a_mistake_if_all_ranks_say_so_and_the_run_never_trained(attempt: Attempt) -> None:
    end(attempt, 0, 2, "ValueError: data.dir")
    assert outcome_of(attempt, 2, replace(USUAL, code=2)).kind == "crashed"
    end(attempt, 1, 2, "ValueError: data.dir")
    outcome = outcome_of(attempt, 2, replace(USUAL, code=2))
    assert (outcome.kind, outcome.node) == ("mistake", "")
    (attempt.run_dir / "checkpoints" / "step-00000010").mkdir(parents=True)
    assert outcome_of(attempt, 2, replace(USUAL, code=2)).kind == "crashed"


@pytest.mark.parametrize(
    ("ends", "node"),
    [
        ([(0, "KeyError: 'x'"), (1, "KeyError: 'x'")], ""),
        ([(0, "RuntimeError: Connection closed by peer"), (1, "KeyError: 'x'")], "n2"),
        ([(1, "KeyError: 'x'")], "n2"),
    ],
)
def test_a_node_is_blamed_unless_all_ranks_failed(
    attempt: Attempt, ends: list[tuple[int, str]], node: str
) -> None:
    for rank, error in ends:
        end(attempt, rank, 1, error)
    assert outcome_of(attempt, 2, USUAL).node == node


@pytest.mark.parametrize(
    ("message", "log", "kind", "why"),
    [
        ("n2: task 1: Exited with exit code 2", NOT_FOUND, "bad node", "No such file or directory"),
        ("task 1 launch failed: Slurmd could not connect IO", "", "bad node", "connect IO"),
        (
            "Task launch for StepId=1.0 failed on node n2: Communication connection failure",
            "",
            "bad node",
            "connection failure",
        ),
        ("n2: task 1: Killed", "", "crashed", "Killed"),
    ],
)
def test_the_rank_that_srun_names_first_is_blamed(
    attempt: Attempt, message: str, log: str, kind: str, why: str
) -> None:
    attempt.log(0).write_text("slurmstepd: error: *** STEP 1.0 ON n1 CANCELLED ***")
    attempt.log(1).write_text(log)
    messages = [f"srun: error: {message}", "srun: error: n1: task 0: Terminated"]
    outcome = outcome_of(attempt, 2, replace(USUAL, code=STOPPED, failures=task_failures(messages)))
    assert (outcome.kind, outcome.node) == (kind, "n2")
    assert outcome.log == str(attempt.log(1))
    assert why in outcome.report.splitlines()[0]
    assert bool(outcome.error) == (kind == "bad node")


def test_a_rank_that_died_first_caused_the_errors_of_the_others(attempt: Attempt) -> None:
    end(attempt, 0, 1, "RuntimeError: Broken pipe")
    messages = ["srun: error: n2: task 1: Out Of Memory", "srun: error: n1: task 0: Terminated"]
    outcome = outcome_of(attempt, 2, replace(USUAL, failures=task_failures(messages)))
    assert (outcome.node, outcome.error) == ("n2", "")
    assert "Out Of Memory" in outcome.report


def test_ranks_are_late_only_once_another_one_waits(attempt: Attempt) -> None:
    assert attempt.late_ranks(3) == []
    attempt.record_ready(1)
    assert attempt.late_ranks(3) == [0, 2]
    attempt.record_ready(0)
    attempt.record_ready(2)
    assert attempt.late_ranks(3) == []


@pytest.mark.process
def test_late_ranks_are_given_time_also_if_the_clock_of_the_files_is_behind(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.0)
    attempt.record_ready(0)
    os.utime(attempt.folder / "rank-00000.ready", (0, 0))
    layout = JobLayout(2, 0, ranks_per_node=1, cpus_per_rank=1, gpus_per_node=0)
    with JobStep(["sleep", "1"], os.environ) as step:
        assert await_end(step, attempt, layout) == []
    monkeypatch.setattr(supervisor, "LATE_SECONDS", 0.3)
    with JobStep(["sleep", "60"], os.environ) as step:
        (failure,) = await_end(step, attempt, layout)
    assert (failure.node, failure.rank, failure.launched) == ("n2", 1, False)


def test_an_attempt_knows_which_one_has_taken_over_the_run(attempt: Attempt) -> None:
    assert attempt.successor() == ""
    Attempt(attempt.run_dir, "5.1.0").begin({"n1": "10.0.0.1"})
    assert attempt.successor() == "5.1.0"


def test_a_node_on_which_a_rank_did_not_start_is_blamed_although_others_hung(
    attempt: Attempt,
) -> None:
    messages = ["srun: error: task 1 launch failed: Slurmd could not connect IO"]
    how = replace(USUAL, code=HUNG, failures=task_failures(messages))
    outcome = outcome_of(attempt, 2, how)
    assert (outcome.kind, outcome.node) == ("bad node", "n2")


def test_if_srun_starts_nothing_no_node_is_blamed(attempt: Attempt) -> None:
    how = replace(USUAL, failures=[TaskFailure("", None, "srun could not start the ranks")])
    outcome = outcome_of(attempt, 2, how)
    assert (outcome.kind, outcome.node, outcome.error) == ("crashed", "", "")
    assert "srun could not start the ranks" in outcome.report
    assert outcome_of(attempt, 2, replace(how, node_lost=True)).kind == "node lost"


def test_nodes_that_srun_names_together_are_not_blamed(attempt: Attempt) -> None:
    messages = ["srun: error: n[1-2]: tasks 0-1: Exited with exit code 1"]
    outcome = outcome_of(attempt, 2, replace(USUAL, failures=task_failures(messages)))
    assert (outcome.kind, outcome.node) == ("crashed", "")


def test_ranks_that_srun_ended_after_a_stop_were_stopped(attempt: Attempt) -> None:
    messages = [
        "srun: error: n1: task 0: Exited with exit code 75",
        "srun: error: n2: task 1: Terminated",
    ]
    how = replace(USUAL, code=STOPPED, failures=task_failures(messages))
    assert outcome_of(attempt, 2, how).kind == "stopped"


def test_a_result_or_a_cancellation_overrides_the_exit_codes(attempt: Attempt) -> None:
    (attempt.run_dir / CANCELLED).touch()
    assert outcome_of(attempt, 2, USUAL).kind == "cancelled"
    (attempt.run_dir / RESULT).touch()
    assert outcome_of(attempt, 2, USUAL).kind == "done"


def test_a_torn_line_does_not_damage_the_history(tmp_path: Path) -> None:
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


@pytest.mark.process
def test_a_disk_that_is_full_for_a_while_loses_no_record(tmp_path: Path) -> None:
    outcome = Outcome("5.0.1", "crashed", 10, "E", "report" * 1000)
    with small_disk(tmp_path / "disk", "1m") as disk:
        attempt = Attempt(disk.folder, "5.0.1")
        with disk.full_for(0.7):
            attempt.begin({"n1": "10.0.0.1"})
        with disk.full_for(0.7):
            attempt.record_exit(RankExit(0, "n1", 1.0, 1, "E", traceback="x" * 5000))
        append_outcome(disk.folder, outcome)
        with disk.full_for(0.7):
            append_outcome(disk.folder, outcome)
        assert attempt.addresses() == {"n1": "10.0.0.1"}
        assert [end.error for end in attempt.rank_exits()] == ["E"]
        assert read_history(disk.folder) == [outcome, outcome]
        assert len((disk.folder / HISTORY).read_bytes().splitlines()) == 2


def test_a_line_of_the_history_keeps_its_format(tmp_path: Path) -> None:
    line = (
        '{"token": "1.0.0", "ending": "node lost", "step": 5, "error": "E", "report": "r",'
        ' "node": "n1", "log": "l", "seconds": 1.5}\n'
    )
    (tmp_path / HISTORY).write_text(line)
    (outcome,) = read_history(tmp_path)
    assert outcome == Outcome("1.0.0", "node lost", 5, "E", "r", "n1", "l", 1.5)
    append_outcome(tmp_path, outcome)
    assert (tmp_path / HISTORY).read_text() == 2 * line


def test_the_address_of_a_node_is_the_one_on_its_route_to_the_others() -> None:
    assert own_address("n1", {"n1": "127.0.1.1"}) == "127.0.0.1"
    assert own_address("n1", {"n1": "127.0.1.1", "n2": "127.0.0.1"}) == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


def test_an_element_of_an_array_is_not_the_whole_array(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the element that starts last, SLURM_JOB_ID is the number of the array."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "")
    assert CurrentJob.mine().id == "7"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert CurrentJob.mine().id == "7_3"


def test_a_rank_uses_the_cores_that_slurm_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
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
