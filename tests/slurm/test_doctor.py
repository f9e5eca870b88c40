"""What a cluster or a machine will cost is told beforehand, setting by setting."""

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.diagnosis.cluster_rules import RULES, Cluster
from launch.diagnosis.facts import look_at_folder, look_at_machine, look_at_store
from launch.diagnosis.finding import Finding, Severity, apply
from launch.diagnosis.machine_rules import RULES as MACHINE_RULES
from launch.diagnosis.machine_rules import Machine
from launch.diagnosis.place_rules import RULES as PLACE_RULES
from launch.diagnosis.place_rules import Folder, Store, container, tracking
from launch.doctor import main, to_text
from tests.slurm.cluster import Cluster as RunningCluster
from tests.slurm.recordings import recorded_partitions, recorded_settings

ROOT = Path(__file__).parents[2]
WORK, TIME, FINE = Severity
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def recorded(name: str, *chosen: str, **changes: str) -> Cluster:
    """A cluster as it was, but for some settings; a run may be in `chosen` partitions, or all."""
    partitions = recorded_partitions(name)
    return Cluster(
        settings=recorded_settings(name) | changes,
        partitions=tuple(partitions.values()),
        chosen=tuple(partitions[each] for each in chosen or partitions),
    )


def judged(cluster: Cluster) -> dict[str, Finding]:
    return {finding.setting: finding for finding in apply(RULES, cluster)}


def severity(setting: str, value: str, name: str = "defaults") -> Severity:
    return judged(recorded(name, **{setting: value}))[setting].severity


# ------------------------------------------------------------------------------------- the cluster


def test_slurms_own_settings_cost_time_but_no_work() -> None:
    found = judged(recorded("defaults"))
    assert [each for each in found.values() if each.severity == WORK] == []
    costly = {setting for setting, each in found.items() if each.severity == TIME}
    assert costly == {
        *("nodes", "SlurmdTimeout", "ReturnToService", "AuthInfo", "ProctrackType", "TaskPlugin"),
    }
    assert found["AuthInfo"].value == "cred_expire=120 (default)"
    assert "waits 121 s" in found["AuthInfo"].meaning
    assert found["nodes"].meaning.startswith("n4 take")


def test_a_cluster_that_pushes_jobs_aside_without_notice_costs_work() -> None:
    found = judged(recorded("preempting", "gpu"))
    costly = {setting for setting, each in found.items() if each.severity == WORK}
    assert costly == {"KillWait", "GraceTime of gpu"}
    assert found["GraceTime of gpu"].meaning.startswith("ranks have 10 s, with KillWait,")
    assert found["PreemptMode"].severity == FINE
    slow = {setting for setting, each in found.items() if each.severity == TIME}
    assert slow >= {"MaxTime of gpu", "RequeueExit", "Prolog", "MaxArraySize"}


def test_jobs_of_the_highest_priority_are_pushed_aside_by_nobody() -> None:
    found = judged(recorded("preempting", "urgent"))
    assert found["PreemptType"].meaning == "nobody's job pushes yours aside"
    assert not any(setting.startswith("GraceTime") for setting in found)


@pytest.mark.parametrize(
    ("name", "mode", "is_pushed"),
    [("main", "REQUEUE", True), ("main", "OFF", False), ("urgent", "REQUEUE", False)],
)
def test_jobs_are_pushed_aside_by_a_higher_priority_where_their_partition_lets_them(
    name: str, mode: str, is_pushed: bool
) -> None:
    cluster = recorded("preempting", name)
    changed = replace(cluster.chosen[0], preempt_mode=mode)
    assert bool(replace(cluster, chosen=(changed,)).preemptable) == is_pushed


def test_every_finding_says_what_it_means_and_those_that_cost_say_what_to_do() -> None:
    for name in ("defaults", "preempting"):
        for finding in apply(RULES, recorded(name)):
            assert finding.meaning
            assert finding.value
            assert bool(finding.remedy) == (finding.severity != FINE), finding


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("SlurmdTimeout", "60 sec", FINE),
        ("SlurmdTimeout", "121 sec", TIME),
        ("SlurmdTimeout", "0 sec", TIME),
        ("ReturnToService", "2", FINE),
        ("AuthInfo", "socket=/run/munge,cred_expire=30", FINE),
        ("AuthInfo", "(null)", TIME),
        ("KillWait", "30 sec", FINE),
        ("KillWait", "29 sec", WORK),
        ("JobRequeue", "0", FINE),
        ("KillOnBadExit", "0", FINE),
        ("ProctrackType", "proctrack/cgroup", FINE),
        ("TaskPlugin", "task/affinity,task/cgroup", FINE),
        ("RequeueExit", "0-3,9", TIME),
        ("RequeueExitHold", "1", TIME),
        ("MaxArraySize", "0", TIME),
        ("SLURM_VERSION", "21.08.8-2", TIME),
        ("SLURM_VERSION", "22.05.8", FINE),
        ("SLURM_VERSION", "24.11.1", FINE),
        ("AccountingStorageType", "(null)", FINE),
        ("AccountingStorageType", "accounting_storage/slurmdbd", FINE),
    ],
)
def test_a_setting_is_judged_by_what_it_costs(setting: str, value: str, expected: Severity) -> None:
    assert severity(setting, value) == expected


def test_codes_that_do_not_bring_a_given_up_run_back_are_nothing_to_tell() -> None:
    assert "RequeueExit" not in judged(recorded("defaults", RequeueExit="2-99"))


def test_a_failing_prolog_holds_jobs_unless_slurm_is_told_not_to() -> None:
    told = recorded("preempting", SchedulerParameters="bf_interval=1,nohold_on_prolog_fail")
    assert "Prolog" in judged(recorded("preempting"))
    assert "Prolog" not in judged(told)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("REQUEUE", FINE),
        ("CANCEL", WORK),
        ("SUSPEND", TIME),
        ("GANG,SUSPEND", TIME),
        ("REQUEUE,GANG", FINE),
    ],
)
def test_what_becomes_of_a_job_that_is_pushed_aside_decides(mode: str, expected: Severity) -> None:
    cluster = recorded("preempting", "main")
    (chosen,) = cluster.chosen
    cluster = replace(cluster, chosen=(replace(chosen, preempt_mode=mode),))
    assert judged(cluster)["PreemptMode"].severity == expected


def test_notice_of_a_minute_is_enough() -> None:
    for kill_wait, expected in (("50 sec", FINE), ("49 sec", WORK)):
        cluster = recorded("preempting", "main", KillWait=kill_wait)  # and GraceTime=10
        assert judged(cluster)["GraceTime of main"].severity == expected


def test_preemption_by_qos_is_told_of_for_every_partition() -> None:
    found = judged(recorded("preempting", "urgent", PreemptType="preempt/qos"))
    assert found["GraceTime"].value == "of the QOS"


def test_a_small_limit_of_locked_memory_matters_where_a_network_is() -> None:
    here = replace(recorded("defaults"), locked_memory_bytes=8 << 20)
    assert "ulimit -l" not in judged(here)
    nodes = tuple(replace(node, address="10.0.0.1") for node in here.chosen[0].nodes)
    apart = replace(here, chosen=(replace(here.chosen[0], nodes=nodes),))
    assert judged(apart)["ulimit -l"].value == "8,192 kB"
    assert judged(apart)["ulimit -l"].severity == WORK
    unlimited = replace(apart, locked_memory_bytes=resource.RLIM_INFINITY)
    assert judged(unlimited)["ulimit -l"].severity == FINE
    kept = dict(apart.settings) | {"PropagateResourceLimitsExcept": "MEMLOCK"}
    assert "ulimit -l" not in judged(replace(apart, settings=kept))


def test_a_stage_in_a_folder_of_the_jobs_own_is_copied_for_each_job() -> None:
    cluster = recorded("defaults", JobContainerType="job_container/tmpfs")
    assert "JobContainerType" not in judged(cluster)
    assert "JobContainerType" not in judged(replace(cluster, stage=Path("/nvme/me")))
    assert judged(replace(cluster, stage=Path("/tmp/me")))["JobContainerType"].severity == TIME


# ------------------------------------------------------------------------------ machine and places

MACHINE = Machine(8, 8, 64 << 30, 1 << 20, resource.RLIM_INFINITY)


@pytest.mark.parametrize(
    ("change", "setting", "expected"),
    [
        ({"torch_gpus": 7}, "GPUs", TIME),
        ({"torch_gpus": 0}, "GPUs", WORK),
        ({"gpus": 0, "torch_gpus": 0}, "GPUs", FINE),
        ({"shared_memory_bytes": 64 << 20}, "/dev/shm", WORK),
        ({"shared_memory_bytes": None}, "/dev/shm", WORK),
        ({"open_files": 1024}, "ulimit -Hn", TIME),
        ({"locked_memory_bytes": 8 << 20}, "ulimit -l", FINE),
    ],
)
def test_a_machine_is_judged_by_what_it_has(
    change: dict[str, Any], setting: str, expected: Severity
) -> None:
    assert {each.severity for each in apply(MACHINE_RULES, MACHINE)} == {FINE}
    found = apply(MACHINE_RULES, replace(MACHINE, **change))
    assert {each.setting: each.severity for each in found}[setting] == expected


def test_this_machine_can_be_looked_at() -> None:
    machine = look_at_machine()
    assert machine.torch_gpus <= machine.gpus
    assert (machine.shared_memory_bytes is not None) == Path("/dev/shm").is_dir()


FOLDER = Folder(
    setting="runs_dir",
    path=Path("/home/me/runs"),
    where="nfs4, mounted at /home",
    is_shared=True,
    must_be="shared",
    is_written=True,
    free_bytes=10**12,
)


@pytest.mark.parametrize(
    ("change", "setting", "expected"),
    [
        ({"is_shared": False}, "runs_dir", WORK),
        ({"is_shared": None}, "runs_dir", FINE),
        ({"is_shared": False, "must_be": "anything"}, "runs_dir", FINE),
        ({"must_be": "local"}, "runs_dir", TIME),
        ({"free_bytes": 10**9}, "free in runs_dir", WORK),
        ({"skew_seconds": -3.0}, "clock of runs_dir", TIME),
        ({"trouble": "Function not implemented"}, "runs_dir", WORK),
    ],
)
def test_a_folder_is_judged_by_what_it_is_for(
    change: dict[str, Any], setting: str, expected: Severity
) -> None:
    assert {each.severity for each in apply(PLACE_RULES, FOLDER)} == {FINE}
    found = apply(PLACE_RULES, replace(FOLDER, **change))
    assert {each.setting: each.severity for each in found}[setting] == expected


def test_a_folder_is_tried_where_it_would_be_made_and_nothing_is_left_there(
    tmp_path: Path,
) -> None:
    folder = look_at_folder("runs_dir", tmp_path / "a" / "b", "shared", is_written=True)
    assert folder.trouble == ""
    assert abs(folder.skew_seconds) < 1
    assert 0 < folder.free_bytes <= shutil.disk_usage(tmp_path).total
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_or_is_not_there_is_told_of(tmp_path: Path) -> None:
    kernel = look_at_folder("runs_dir", Path("/proc/runs"), "anything", is_written=True)
    assert kernel.trouble != ""
    absent = look_at_folder("data.dir", tmp_path / "a", "shared", is_written=False)
    assert absent.trouble == "there is no such folder"


def test_a_tracking_server_that_does_not_answer_is_told_of_without_its_password() -> None:
    store = look_at_store("http://me:secret@127.0.0.1:9")
    assert "secret" not in store.uri + store.error
    assert tracking(store).severity == TIME
    assert tracking(look_at_store("sqlite:////tmp/mlflow.db")).severity == FINE
    assert tracking(Store("sqlite:////home/me/mlflow.db", shared_file=True)).severity == TIME


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer"])
def test_a_container_whose_runtime_is_missing_costs_work(runtime: str) -> None:
    assert container(runtime, is_there=True).severity == FINE
    assert container(runtime, is_there=False).severity == WORK


# ------------------------------------------------------------------------------------- the program


def test_what_costs_most_is_told_first() -> None:
    text = to_text(apply(RULES, recorded("preempting")))
    assert text.index("COSTS WORK") < text.index("COSTS TIME") < text.index("\nFINE")
    assert max(map(len, text.splitlines())) <= 100


def test_without_slurm_this_machine_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code = main(["--json"])
    findings = json.loads(capsys.readouterr().out)
    assert findings[0]["setting"] == "SLURM"
    assert {"GPUs", "/dev/shm", "runs_dir", "tracking.uri"} <= {
        each["setting"] for each in findings
    }
    assert code == int(any(each["severity"] == "costs work" for each in findings))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.yaml"], "missing.yaml"),
        ([str(QUICKSTART), "slurm.partition=1"], "slurm.partition"),
    ],
)
def test_a_mistake_in_the_configuration_is_told_and_ends_with_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def run_doctor(
    environment: dict[str, str], *arguments: object
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, ROOT / "launch" / "doctor.py", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_cluster_is_examined(cluster: RunningCluster, tmp_path: Path) -> None:
    runs_dir = f"runs_dir={tmp_path}/runs"
    answer = run_doctor(cluster.environment, QUICKSTART, runs_dir, "--json", "--nodes", 4)
    assert answer.returncode == 1, answer.stderr
    found = {each["setting"]: each for each in json.loads(answer.stdout)}
    assert found["KillWait"]["value"] == "5 sec"
    assert found["KillWait"]["severity"] == "costs work"
    assert found["GraceTime of main"]["value"] == "10"
    assert found["request"]["meaning"].startswith("no slurm.time_limit")
    assert list(tmp_path.iterdir()) == []


def test_what_a_cluster_refuses_ends_with_2_and_all_else_is_told_nevertheless(
    cluster: RunningCluster,
) -> None:
    answer = run_doctor(cluster.environment, QUICKSTART, "slurm.partition=urgnet")
    assert answer.returncode == 2
    assert "did you mean urgent?" in answer.stderr
    assert "KillWait" in answer.stdout
    assert "Traceback" not in answer.stderr


def test_without_the_plugin_pyxis_a_container_costs_work(cluster: RunningCluster) -> None:
    answer = run_doctor(cluster.environment, QUICKSTART, "slurm.container={image: a.sqsh}")
    assert "srun knows no --container-image" in answer.stdout


def test_a_cluster_that_does_not_answer_costs_work_and_all_else_is_told(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    lost = tmp_path / "slurm.conf"
    lines = ["ClusterName=lost", "SlurmctldHost=localhost", "SlurmctldPort=9", "MessageTimeout=1"]
    lost.write_text("\n".join(lines) + "\n")
    answer = run_doctor(cluster.environment | {"SLURM_CONF": str(lost)})
    assert answer.returncode == 1
    assert "SLURM = no answer" in answer.stdout
    assert "/dev/shm" in answer.stdout
