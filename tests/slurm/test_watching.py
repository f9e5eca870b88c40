"""What launch/watch.py does about jobs, decided purely and done on a real cluster."""

import os
import signal
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from launch.slurm.api.jobs import QueuedJob, job_from
from launch.slurm.watch.ledger import hold_memory
from launch.slurm.watch.rules import Failure, Seen, WatchLimits, failing_nodes, precautions
from tests.slurm.cluster import Cluster, start_cluster, wait_until
from tests.slurm.conftest import require_cluster
from tests.slurm.queued_runs import (
    began,
    command_of,
    environment_of,
    failed_on,
    queued_run,
    run_program,
    tell,
)
from tests.slurm.settings import Hardware

LIMITS = WatchLimits(stalled_seconds=1800)
NOW = 1_000_000.0
HOUR = 3600.0


def waiting(reason: str, restarts: int = 0, excluded: tuple[str, ...] = (), of: int = 4) -> Seen:
    job = QueuedJob("7", "PENDING", "1:00", 2, None, "", reason)
    return Seen(Path("runs/a"), job, NOW, restarts, frozenset(excluded), of)


def commands(seen: Seen, failing: tuple[str, ...] = (), done: tuple[str, ...] = ()) -> list[str]:
    return [" ".join(each.command) for each in precautions(seen, failing, done, LIMITS, NOW)]


def test_a_job_that_was_queued_again_starts_at_once() -> None:
    assert commands(waiting("BeginTime", restarts=1)) == ["scontrol update jobid=7 StartTime=now"]


def test_a_job_whose_owner_chose_its_begin_time_is_left_alone() -> None:
    assert commands(waiting("BeginTime")) == []


def test_a_job_that_still_completes_is_left_alone() -> None:
    job = job_from("7|COMPLETING|1:00|2|N/A|n1|BeginTime")
    assert commands(Seen(Path("a"), job, NOW, 1)) == []


def test_each_requeue_is_hastened_once() -> None:
    (first,) = precautions(waiting("BeginTime", 1), (), (), LIMITS, NOW)
    assert commands(waiting("BeginTime", 1), done=(first.key,)) == []
    assert commands(waiting("BeginTime", 2), done=(first.key,)) != []


def test_a_job_that_slurm_holds_is_released_once_and_then_told_of_once() -> None:
    seen = waiting("launch failed requeued held", 1)
    (release,) = precautions(seen, (), (), LIMITS, NOW)
    assert release.command == ("scontrol", "release", "7")
    (told,) = precautions(seen, (), (release.key,), LIMITS, NOW)
    assert told.command == ()
    assert "scontrol release 7" in told.sentence
    assert commands(seen, done=(release.key, told.key)) == []


@pytest.mark.parametrize("reason", ["JobHeldUser", "JobHeldAdmin", "job requeued in held state"])
def test_a_job_that_a_person_holds_is_told_of_and_stays_held(reason: str) -> None:
    assert commands(waiting(reason)) == [""]


@pytest.mark.parametrize("reason", ["Resources", "Priority", "Dependency", "None"])
def test_a_job_that_waits_in_turn_is_left_alone(reason: str) -> None:
    assert commands(waiting(reason, restarts=3)) == []


def test_a_node_fails_by_three_failures_in_a_day() -> None:
    old = [Failure("n1", NOW - 25 * HOUR), Failure("n2", NOW - HOUR)]
    new = [Failure("n1", NOW - 23 * HOUR), Failure("n1", NOW - HOUR)]
    assert failing_nodes(old + new, LIMITS, NOW) == []
    assert failing_nodes([*old, *new, Failure("n1", NOW)], LIMITS, NOW) == ["n1"]


def test_a_failing_node_joins_those_that_a_job_already_excludes() -> None:
    seen = waiting("Resources", excluded=("n4",))
    assert commands(seen, ("n1",)) == ["scontrol update jobid=7 ExcNodeList=n1,n4"]
    assert commands(seen, ("n4",)) == []


def test_a_job_keeps_the_nodes_without_which_it_could_not_run() -> None:
    assert commands(waiting("Resources", excluded=("n4",), of=3), ("n1",)) == [""]


def test_a_running_job_that_writes_nothing_is_told_of_once_in_each_silence() -> None:
    job = job_from("7|RUNNING|1:00|2|N/A|n[1-2]|None")
    silent = Seen(Path("a"), job, NOW - 1801)
    (told,) = precautions(silent, (), (), LIMITS, NOW)
    assert commands(silent, done=(told.key,)) == []
    assert commands(Seen(Path("a"), job, NOW - 1799)) == []
    again = Seen(Path("a"), job, NOW)
    assert precautions(again, (), (told.key,), LIMITS, NOW + 1801) != []


def test_a_job_that_has_only_started_is_not_silent() -> None:
    job = QueuedJob("7", "RUNNING", "1:00", 2, NOW - 60, "n[1-2]", "")
    assert commands(Seen(Path("a"), job, active_at=0.0)) == []


def test_what_was_done_is_remembered_and_one_watcher_at_a_time_remembers(tmp_path: Path) -> None:
    with hold_memory(tmp_path) as memory:
        memory.add("start 7.1")
        other = run_program("watch.py", "--once", tmp_path)
        assert other.returncode == 2
        assert "already" in other.stderr
    with hold_memory(tmp_path) as memory:
        assert list(memory.keys()) == ["start 7.1"]


def test_without_an_answer_the_watcher_ends_with_1_or_goes_on_saying_so_once(
    tmp_path: Path,
) -> None:
    queued_run(tmp_path, "test-a", "7")
    once = run_program("watch.py", "--once", tmp_path)
    assert (once.returncode, once.stdout.count("not on PATH")) == (1, 1)
    with subprocess.Popen(
        command_of("watch.py", "--every-seconds=0.1", tmp_path),
        env=environment_of(None),
        stdout=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdout is not None
        assert "not on PATH" in watcher.stdout.readline()
        time.sleep(1)
        assert watcher.poll() is None
        watcher.send_signal(signal.SIGINT)
        assert watcher.stdout.read() == ""
    assert watcher.returncode == 130


def watch(cluster: Cluster, *arguments: str | Path) -> list[str]:
    done = run_program("watch.py", "--once", *arguments, cluster=cluster)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_failing_node_is_kept_from_a_real_job_once(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("true", "--begin=now+1hour", "--exclude=n4")
    queued_run(tmp_path, "test-a", job)
    queued_run(tmp_path, "test-b", "", [failed_on("n1.site.org", f"1.0.{i}") for i in range(3)])
    (line,) = watch(cluster, tmp_path)
    assert "n1" in line
    assert cluster.job(job)["ExcNodeList"] == "n1,n4"
    assert watch(cluster, tmp_path) == []


def test_a_real_job_that_is_silent_is_told_of_once(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("sleep 300", "--output=/dev/null")
    run_dir = queued_run(tmp_path, "test-a", job)
    tell(run_dir, began(run_dir))
    cluster.wait_for(job, "RUNNING")
    assert watch(cluster, tmp_path) == []
    time.sleep(2.5)
    (line,) = watch(cluster, "--stalled-minutes=0.03", tmp_path)
    assert "test-a" in line
    assert watch(cluster, "--stalled-minutes=0.03", tmp_path) == []
    later = time.time() - 2
    os.utime(run_dir / "metrics.jsonl", (later, later))
    assert watch(cluster, tmp_path) == []


@pytest.fixture(scope="module")
def slow_cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """It lets a requeued job wait for two minutes, and starts none while there is `broken`."""
    require_cluster()
    folder = tmp_path_factory.mktemp("slow")
    prolog = folder / "prolog"
    prolog.write_text(f"#!/bin/sh\ntest ! -e {folder}/broken\n")
    prolog.chmod(0o755)
    credentials = f"socket={folder}/munge.socket,cred_expire=120"
    nodes = Hardware(nodes=2)
    with start_cluster(folder, nodes, AuthInfo=credentials, Prolog=prolog) as cluster:
        yield cluster


def test_a_real_requeued_job_need_not_wait_for_two_minutes(
    slow_cluster: Cluster, tmp_path: Path
) -> None:
    job = slow_cluster.submit("sleep 300", "--requeue", "--output=/dev/null")
    queued_run(tmp_path, "test-a", job)
    slow_cluster.wait_for(job, "RUNNING")
    slow_cluster.run("scontrol", "requeue", job)
    slow_cluster.wait_for(job, "PENDING")
    wait_until(lambda: bool(watch(slow_cluster, tmp_path)), lambda: "nothing was done", 20)
    assert slow_cluster.wait_for(job, "RUNNING", 30)["Restarts"] == "1"
    assert watch(slow_cluster, tmp_path) == []
    slow_cluster.run("scancel", job)


def test_a_real_job_whose_start_failed_is_released(slow_cluster: Cluster, tmp_path: Path) -> None:
    broken = slow_cluster.folder / "broken"
    broken.touch()
    job = slow_cluster.submit("sleep 300", "--requeue", "--output=/dev/null")
    queued_run(tmp_path, "test-a", job)
    wait_until(
        lambda: "held" in slow_cluster.job(job)["Reason"], lambda: str(slow_cluster.job(job)), 30
    )
    broken.unlink()
    assert any("released" in line for line in watch(slow_cluster, tmp_path))
    assert "held" not in slow_cluster.job(job)["Reason"].lower()
