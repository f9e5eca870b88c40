"""The test cluster and the lab behave like real ones, and leave nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import Cluster, start_cluster, wait_until
from tests.slurm.conftest import require_cluster, require_lab
from tests.slurm.lab import Lab, start_lab
from tests.slurm.settings import Hardware

REPOSITORY = Path(__file__).parents[2]
REQUEUE_SECONDS = 15  # 5 s of the credentials, one more, and a scheduling cycle


def running_job(cluster: Cluster, *options: str) -> str:
    """A job that sleeps on all four nodes."""
    job = cluster.submit("srun sleep 300", "--nodes=4", *options)
    cluster.wait_for(job, "RUNNING")
    wait_until(lambda: len(cluster.rank_processes(job)) == 4, lambda: "no ranks", 20)
    return job


def output_of(cluster: Cluster, script: str) -> list[str]:
    job = cluster.submit(script, "--nodes=4", "--output=%j.txt")
    cluster.wait_for(job, "COMPLETED")
    return sorted((cluster.folder / f"{job}.txt").read_text().splitlines())


def processes_of(folder: Path) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("SLURM_CONF", "")]
        except psutil.Error:
            continue
        if any(word.startswith(str(folder)) for word in words):
            found.append(process)
    return found


def index_of_interface(folder: Path) -> int:
    """The index of this host's interface to a lab; unlike names, indices are never reused."""
    found = re.search(r"\(10\.77\.(\d+)\.254\)", (folder / "slurm.conf").read_text())
    assert found is not None
    return socket.if_nametoindex(f"slurmlab{found[1]}")


def interfaces() -> set[int]:
    return {index for index, _ in socket.if_nameindex()}


def test_a_cluster_has_four_idle_nodes(cluster: Cluster) -> None:
    assert cluster.node_states() == dict.fromkeys(("n1", "n2", "n3", "n4"), "idle")


def test_a_job_runs_one_task_on_each_node(cluster: Cluster) -> None:
    lines = output_of(cluster, "srun sh -c 'echo $SLURM_PROCID $SLURMD_NODENAME'")
    assert lines == ["0 n1", "1 n2", "2 n3", "3 n4"]


def test_a_job_sees_the_gpus_that_it_asked_for(cluster: Cluster) -> None:
    script = "srun --gpus-per-node=2 sh -c 'echo $CUDA_VISIBLE_DEVICES'"
    job = cluster.submit(script, "--gpus-per-node=2", "--output=gpus.txt")
    cluster.wait_for(job, "COMPLETED")
    assert (cluster.folder / "gpus.txt").read_text() == "0,1\n"


def test_ranks_are_found_and_gone_after_a_cancel(cluster: Cluster) -> None:
    job = running_job(cluster)
    assert [cluster.rank_process(job, rank).name() for rank in range(4)] == ["sleep"] * 4
    cluster.run("scancel", job)
    cluster.wait_for(job, "CANCELLED")
    wait_until(lambda: not cluster.rank_processes(job), lambda: "ranks are left", 20)


def test_a_job_ends_when_a_rank_is_killed(cluster: Cluster) -> None:
    job = cluster.submit("srun --kill-on-bad-exit=1 sleep 300", "--nodes=4")
    wait_until(lambda: len(cluster.rank_processes(job)) == 4, lambda: "no ranks", 20)
    cluster.rank_process(job, 2).kill()
    cluster.wait_for(job, "FAILED")


def test_a_restarted_controller_leaves_jobs_alone(cluster: Cluster) -> None:
    job = running_job(cluster)
    ranks = {process.pid for process in cluster.rank_processes(job)}
    cluster.restart_controller()
    cluster.wait_for(job, "RUNNING")
    assert {process.pid for process in cluster.rank_processes(job)} == ranks


def test_a_requeued_job_runs_again_within_seconds(cluster: Cluster) -> None:
    job = running_job(cluster)
    cluster.run("scontrol", "requeue", job)
    started = time.monotonic()
    cluster.wait_for(job, "PENDING")
    assert cluster.wait_for(job, "RUNNING", REQUEUE_SECONDS)["Restarts"] == "1"
    assert time.monotonic() - started < REQUEUE_SECONDS


def test_an_urgent_job_preempts_another_with_the_signal_it_asked_for(
    cluster: Cluster,
) -> None:
    ready = cluster.folder / "ready"
    script = f"trap 'scontrol requeue $SLURM_JOB_ID' USR2; touch {ready}; while sleep 1; do :; done"
    job = cluster.submit(f'srun bash -c "{script}"', "--signal=USR2@30")
    wait_until(ready.exists, lambda: "no rank", 20)
    urgent = cluster.submit("true", "--partition=urgent", "--nodes=4", "--exclusive")
    cluster.wait_for(urgent, "COMPLETED")
    assert cluster.wait_for(job, "RUNNING", REQUEUE_SECONDS)["Restarts"] == "1"


def test_a_node_set_down_loses_its_jobs_until_resumed(cluster: Cluster) -> None:
    job = running_job(cluster)
    cluster.set_down("n2")
    cluster.wait_for(job, "PENDING")
    cluster.resume("n2")
    cluster.wait_for(job, "RUNNING")


def test_each_node_of_a_lab_has_its_own_name_address_and_processes(lab: Lab) -> None:
    script = "srun sh -c 'echo $(hostname) $(hostname -I) $(cat /proc/1/comm)'"
    expected = [f"{node.name} {node.address} slurmd" for node in lab.nodes]
    assert output_of(lab, script) == expected


def test_nodes_of_a_lab_reach_each_other_by_name(lab: Lab) -> None:
    script = "srun bash -c ': </dev/tcp/m1/6818 && : </dev/tcp/m4/6818 && echo reached'"
    assert output_of(lab, script) == ["reached"] * 4


def test_a_node_that_is_cut_off_is_unreachable_until_reconnected(lab: Lab) -> None:
    lab.cut("m3")
    lab.wait_for_node("m3", r".*\*")
    assert {state for node, state in lab.node_states().items() if node != "m3"} == {"idle"}
    lab.mend("m3")
    lab.wait_for_node("m3", "idle")


def test_a_node_that_is_switched_off_goes_down_and_its_job_starts_elsewhere(lab: Lab) -> None:
    job = lab.submit("srun sleep 300", "--nodes=2")
    wait_until(lambda: len(lab.rank_processes(job)) == 2, lambda: "no ranks", 20)
    assert lab.job(job)["NodeList"] == "m[1-2]"
    lab.power_off("m2")
    lab.wait_for_node("m2", r"down\*")
    fields = lab.wait_for(job, "RUNNING", 60)
    assert fields["Restarts"] == "1"
    assert "m2" not in fields["NodeList"]


def test_restoring_repairs_a_lab(lab: Lab) -> None:
    lab.power_off("m1")
    lab.cut("m4")
    lab.restore()
    assert set(lab.node_states().values()) == {"idle"}
    assert len(output_of(lab, "srun hostname")) == 4


def test_a_cluster_with_a_running_job_leaves_nothing_behind(tmp_path: Path) -> None:
    require_cluster()
    with start_cluster(tmp_path, Hardware(nodes=1)) as cluster:
        job = cluster.submit("srun setsid sleep 300")
        wait_until(lambda: len(cluster.rank_processes(job)) > 0, lambda: "no ranks", 20)
        assert processes_of(tmp_path)
    assert not processes_of(tmp_path)


def test_a_lab_leaves_nothing_behind_if_its_test_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with start_lab(tmp_path, Hardware(nodes=1)) as lab:
            job = lab.submit("srun sleep 300")
            wait_until(lambda: len(lab.rank_processes(job)) > 0, lambda: "no ranks", 20)
            raise ZeroDivisionError(index_of_interface(tmp_path))

    require_lab()
    with pytest.raises(ZeroDivisionError) as failure:
        fail()
    assert not processes_of(tmp_path)
    assert failure.value.args[0] not in interfaces()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kind", ["cluster", "lab"])
def test_the_command_leaves_nothing_behind_when_it_is_stopped(
    kind: str, stop: signal.Signals, tmp_path: Path
) -> None:
    (require_lab if kind == "lab" else require_cluster)()
    command = [sys.executable, "-m", "tests.slurm", "--nodes=1", *["--lab"] * (kind == "lab")]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"export SLURM_CONF={tmp_path}")
        (folder,) = tmp_path.iterdir()
        interface = index_of_interface(folder) if kind == "lab" else None
        assert processes_of(tmp_path)
        process.send_signal(stop)
    wait_until(lambda: not processes_of(tmp_path), lambda: str(processes_of(tmp_path)), 10)
    wait_until(lambda: interface not in interfaces(), lambda: "its interface is left", 10)
