"""A run on a real cluster survives every fault, bit for bit like an unbroken run."""

import json
import time
from pathlib import Path

import pytest

from tests.launch.queued_runs import run_program
from tests.multiprocess.runs import events, result
from tests.slurm.cluster import Cluster
from tests.slurm.lab import Lab
from tests.slurm.trainings import expect_like, submit


def test_four_nodes_of_two_ranks_train(cluster: Cluster, recipe: Path) -> None:
    training = submit(cluster, recipe, "train.global_batch=64", nodes=4, ranks=2)
    training.wait_for_end()
    assert training.outcomes == ["done"]
    assert result(training.run_dir)["world_size"] == 8
    logs = sorted(path.name for path in training.run_dir.glob("logs/latest/rank-*.log"))
    assert logs == [f"rank-{rank}.log" for rank in range(8)]
    assert training.orphans() == []


def test_a_killed_rank_costs_a_restart_inside_the_job(
    cluster: Cluster, recipe: Path, whole: Path
) -> None:
    training = submit(cluster, recipe)
    training.wait_for_step(20)
    fault_at = time.time()
    cluster.rank_process(training.job_id, 1).kill()
    training.wait_for_end()
    assert training.outcomes == ["crashed", "done"]
    assert cluster.job(training.job_id)["Restarts"] == "0"
    expect_like(training, whole)
    print(f"SIGKILL of a rank: next report after {training.seconds_to_next_step(fault_at):.1f} s")


def test_a_requeue_saves_first_and_resumes_there(
    cluster: Cluster, recipe: Path, whole: Path
) -> None:
    training = submit(cluster, recipe)
    training.wait_for_step(20)
    fault_at = time.time()
    cluster.run("scontrol", "requeue", training.job_id)
    training.wait_for_end()
    assert training.outcomes[-1] == "done"
    assert cluster.job(training.job_id)["Restarts"] == "1"
    expect_like(training, whole)
    print(f"scontrol requeue: next report after {training.seconds_to_next_step(fault_at):.1f} s")


@pytest.mark.parametrize("name", ["USR2", "TERM"])
def test_a_stop_signal_saves_and_requeues(
    cluster: Cluster, recipe: Path, whole: Path, name: str
) -> None:
    training = submit(cluster, recipe)
    training.wait_for_step(20)
    fault_at = time.time()
    cluster.run("scancel", f"--signal={name}", training.job_id)
    training.wait_for_end()
    assert training.outcomes == ["stopped", "done"]
    assert cluster.job(training.job_id)["Restarts"] == "1"
    expect_like(training, whole)
    print(f"scancel --signal={name}: next report {training.seconds_to_next_step(fault_at):.1f} s")


def test_the_time_limit_requeues_until_the_run_is_done(
    cluster: Cluster, recipe: Path, whole: Path
) -> None:
    training = submit(cluster, recipe, "slurm.time_limit='60'", "slurm.stop_notice_seconds=30")
    training.wait_for_step(20)
    # Otherwise the run would finish before the limit. SLURM's notice resumes the rank.
    cluster.rank_process(training.job_id, 1).suspend()
    minutes = 2 + int((time.time() - training.submission.submitted_at) / 60)
    cluster.run("scontrol", "update", f"jobid={training.job_id}", f"TimeLimit={minutes}")
    training.wait_for_end()
    fault_at = events(training.run_dir, "run_ended")[0]["time"]
    assert training.outcomes == ["time limit", "done"]
    expect_like(training, whole)
    print(f"time limit: next report after {training.seconds_to_next_step(fault_at):.1f} s")


def test_a_preempted_run_saves_within_its_grace_and_resumes(
    cluster: Cluster, recipe: Path, whole: Path
) -> None:
    training = submit(cluster, recipe)
    training.wait_for_step(20)
    # Otherwise the run might finish first. SLURM's signals resume the rank.
    cluster.rank_process(training.job_id, 0).suspend()
    options = ("--partition=urgent", "--nodes=4", "--exclusive")
    urgent = cluster.submit("#!/bin/sh\nsleep 2\n", *options)
    training.wait_for_end()
    assert cluster.job(urgent)["JobState"] == "COMPLETED"
    assert training.outcomes == ["stopped", "done"]
    assert cluster.job(training.job_id)["Restarts"] == "1"
    expect_like(training, whole)


def test_a_node_that_goes_down_is_replaced_and_its_old_ranks_write_nothing(
    lab: Lab, recipe: Path, whole: Path
) -> None:
    training = submit(lab, recipe)
    training.wait_for_step(20)
    down = training.node_of(rank=0)
    fault_at = time.time()
    lab.set_down(down)
    training.wait_for_end()
    assert training.outcomes[-1] == "done"
    expect_like(training, whole)
    print(f"node set down: next report after {training.seconds_to_next_step(fault_at):.1f} s")


def test_a_rank_may_die_while_the_controller_is_down(
    cluster: Cluster, recipe: Path, whole: Path
) -> None:
    training = submit(cluster, recipe)
    training.wait_for_step(10)
    frozen = cluster.rank_process(training.job_id, 0)
    frozen.suspend()  # training must not end before the controller is down
    cluster.stop_controller()
    frozen.resume()
    cluster.rank_process(training.job_id, 1).kill()
    time.sleep(5)
    cluster.start_controller()
    training.wait_for_end()
    assert training.outcomes == ["crashed", "done"]
    expect_like(training, whole)


def test_a_repeated_crash_fails_with_the_traceback_of_the_first_rank(
    cluster: Cluster, recipe: Path
) -> None:
    training = submit(cluster, recipe, "optim.lr=1e30")
    training.wait_for_end("FAILED")
    assert training.outcomes == ["crashed", "crashed"]
    log = training.log()
    assert "the same error occurred twice at the same step" in log
    assert "the loss became" in log
    assert log.count("lower optim.lr") <= 3  # at the end of each attempt and of the job
    last = log.splitlines()[-1]
    assert "the run is given up: the same error occurred twice at the same step" in last
    assert last.endswith(f"python launch/resume.py {training.run_dir}")


def test_a_killed_batch_side_is_reported_and_the_watcher_resumes_the_run(
    cluster: Cluster, recipe: Path, whole: Path
) -> None:
    """As the OOM killer does: the shell cannot requeue the job any more."""
    training = submit(cluster, recipe)
    training.wait_for_step(20)
    cluster.rank_process(training.job_id, 0).suspend()  # else the run might finish first
    supervisor = cluster.supervisor_process(training.job_id)
    for process in (supervisor.parent(), supervisor):
        assert process
        process.kill()
    training.wait_for_end("FAILED")
    (log,) = training.run_dir.glob("logs/job-*.log")
    with log.open("a") as file:  # slurmstepd writes this where control groups limit the memory
        file.write("slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.\n")
    shown = json.loads(run_program("status.py", "--json", training.run_dir, cluster=cluster).stdout)
    assert shown["state"] == "lost"
    assert shown["reason"].startswith("slurmstepd: error: Detected 1 oom_kill event")
    done = run_program("watch.py", "--once", training.run_dir, cluster=cluster)
    assert done.returncode == 0, done.stderr
    assert "ended without a report" in done.stdout
    assert training.submission.number == 2
    training.wait_for_end()
    assert training.outcomes == ["done"]
    expect_like(training, whole)


def test_a_users_mistake_is_not_retried(cluster: Cluster, recipe: Path) -> None:
    training = submit(cluster, recipe, "data.loader.decode=mixed")
    training.wait_for_end("FAILED")
    assert training.outcomes == ["mistake"]


def test_a_link_that_is_cut_for_a_while_costs_only_time(
    lab: Lab, recipe: Path, whole: Path
) -> None:
    training = submit(lab, recipe)
    training.wait_for_step(20)
    cut, fault_at = training.node_of(rank=1), time.time()
    lab.cut(cut)
    time.sleep(5)  # shorter than SlurmdTimeout: the node is not declared down
    lab.mend(cut)
    training.wait_for_end()
    assert training.outcomes == ["done"]
    expect_like(training, whole)
    pause = training.longest_pause(since=fault_at)
    print(f"link cut for 5 s: training paused for {pause:.1f} s")


def test_a_spare_node_replaces_one_that_is_switched_off(
    lab: Lab, recipe: Path, whole: Path
) -> None:
    training = submit(lab, recipe, "slurm.spare_nodes=1")
    training.wait_for_step(20)
    lost, fault_at = training.node_of(rank=1), time.time()
    lab.power_off(lost)
    training.wait_for_end()
    assert training.outcomes == ["node lost", "done"]
    assert lab.job(training.job_id)["Restarts"] == "0"
    assert lost not in training.nodes()
    expect_like(training, whole)
    print(f"node switched off, spare: next report {training.seconds_to_next_step(fault_at):.1f} s")
