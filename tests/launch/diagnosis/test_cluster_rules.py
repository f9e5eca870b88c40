"""Each setting of a cluster is judged by what it costs a run."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from launch.diagnosis.cluster_rules import RULES, Cluster
from launch.diagnosis.finding import Finding, Severity, apply
from tests.launch.slurm.recordings import recorded

WORK, TIME, FINE = Severity


def judged(cluster: Cluster) -> dict[str, Finding]:
    return {finding.setting: finding for finding in apply(RULES, cluster)}


def severity(setting: str, value: str, name: str = "defaults") -> Severity:
    return judged(recorded(name, **{setting: value}))[setting].severity


def test_default_settings_cost_time_but_no_work() -> None:
    found = judged(recorded("defaults"))
    assert [each for each in found.values() if each.severity == WORK] == []
    costly = {setting for setting, each in found.items() if each.severity == TIME}
    assert costly == {
        *("nodes", "SlurmdTimeout", "ReturnToService", "AuthInfo", "ProctrackType", "TaskPlugin"),
    }
    assert found["AuthInfo"].value == "cred_expire=120 (default)"
    assert "waits 121 s" in found["AuthInfo"].meaning
    assert found["nodes"].meaning == "no jobs can start on n4 now"


def test_preemption_without_notice_costs_work() -> None:
    found = judged(recorded("preempting", "gpu"))
    costly = {setting for setting, each in found.items() if each.severity == WORK}
    assert costly == {"KillWait", "GraceTime of gpu"}
    meaning = found["GraceTime of gpu"].meaning
    assert meaning.startswith("with KillWait, ranks of a preempted job have 10 s")
    assert found["PreemptMode"].severity == FINE
    slow = {setting for setting, each in found.items() if each.severity == TIME}
    assert slow >= {"MaxTime of gpu", "RequeueExit", "Prolog", "MaxArraySize"}


def test_jobs_of_the_highest_priority_are_not_preempted() -> None:
    found = judged(recorded("preempting", "urgent"))
    assert found["PreemptType"].meaning == "no other job preempts yours"
    assert not any(setting.startswith("GraceTime") for setting in found)


@pytest.mark.parametrize(
    ("name", "mode", "is_preempted"),
    [("main", "REQUEUE", True), ("main", "OFF", False), ("urgent", "REQUEUE", False)],
)
def test_jobs_are_preempted_by_a_higher_priority_if_their_partition_allows_it(
    name: str, mode: str, is_preempted: bool
) -> None:
    cluster = recorded("preempting", name)
    changed = replace(cluster.chosen[0], preempt_mode=mode)
    assert bool(replace(cluster, chosen=(changed,)).preemptable) == is_preempted


def test_every_finding_has_a_meaning_and_costly_ones_have_a_remedy() -> None:
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


def test_exit_codes_that_do_not_requeue_a_given_up_run_are_not_reported() -> None:
    assert "RequeueExit" not in judged(recorded("defaults", RequeueExit="2-99"))


def test_a_failing_prolog_holds_jobs_unless_slurm_is_told_not_to() -> None:
    allowed = recorded("preempting", SchedulerParameters="bf_interval=1,nohold_on_prolog_fail")
    assert "Prolog" in judged(recorded("preempting"))
    assert "Prolog" not in judged(allowed)


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
def test_the_preempt_mode_decides_what_preemption_costs(mode: str, expected: Severity) -> None:
    cluster = recorded("preempting", "main")
    (chosen,) = cluster.chosen
    cluster = replace(cluster, chosen=(replace(chosen, preempt_mode=mode),))
    assert judged(cluster)["PreemptMode"].severity == expected


def test_one_minute_of_notice_is_enough() -> None:
    for kill_wait, expected in (("50 sec", FINE), ("49 sec", WORK)):
        cluster = recorded("preempting", "main", KillWait=kill_wait)  # and GraceTime=10
        assert judged(cluster)["GraceTime of main"].severity == expected


def test_preemption_by_qos_is_reported_for_every_partition() -> None:
    found = judged(recorded("preempting", "urgent", PreemptType="preempt/qos"))
    assert found["GraceTime"].value == "of the QOS"


def test_a_low_limit_of_locked_memory_matters_only_across_a_network() -> None:
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


def test_a_stage_in_a_private_tmp_is_copied_for_each_job() -> None:
    cluster = recorded("defaults", JobContainerType="job_container/tmpfs")
    assert "JobContainerType" not in judged(cluster)
    assert "JobContainerType" not in judged(replace(cluster, stage=Path("/nvme/me")))
    assert judged(replace(cluster, stage=Path("/tmp/me")))["JobContainerType"].severity == TIME
