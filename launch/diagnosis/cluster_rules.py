"""Rules about a SLURM cluster: its settings, and the partitions that a run may use."""

import re
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launch.diagnosis.finding import Finding, costs_time, costs_work, fine
from launch.slurm.api.partitions import Partition, limit_text
from pipeline.system.command import plural
from pipeline.system.exit_codes import FAILURE

STOP_SECONDS = 60
"""The time that ranks may need to finish a step and save; see pipeline/distributed/stopping.py."""
PATIENCE_SECONDS = 120
TESTED = (22, 5)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The facts about a cluster."""

    settings: Mapping[str, str]
    """As `scontrol show config` prints them."""
    partitions: tuple[Partition, ...]
    """All partitions."""
    chosen: tuple[Partition, ...]
    """The partitions that the run may use."""
    stage: Path | None = None
    locked_memory_bytes: int = resource.RLIM_INFINITY
    """The limit of the shell that submits."""

    def value(self, name: str) -> str:
        """Return a setting; empty if it is unset."""
        text = self.settings.get(name, "")
        return "" if text == "(null)" else text

    def number(self, name: str) -> int:
        """Return the number at the start of a setting, or 0."""
        match = re.match(r"[0-9]+", self.value(name))
        return int(match[0]) if match else 0

    def words(self, name: str) -> list[str]:
        """Return the items of a setting with commas."""
        return [word.strip() for word in self.value(name).split(",") if word.strip()]

    @property
    def preemptable(self) -> list[Partition]:
        """The chosen partitions whose jobs can be preempted, judged by partition settings alone."""
        if self.value("PreemptType") == "preempt/partition_prio":
            return [each for each in self.chosen if self._has_rival(each)]
        return list(self.chosen) if self.value("PreemptType") == "preempt/qos" else []

    def preempt_mode(self, partition: Partition) -> str:
        """Return what happens to preempted jobs; a mode of OFF means the cluster's."""
        mode = partition.preempt_mode
        return self.value("PreemptMode") if mode == "OFF" else mode

    def _has_rival(self, partition: Partition) -> bool:
        nodes = set(partition.node_names)
        return partition.preempt_mode != "OFF" and any(
            other.priority_tier > partition.priority_tier and nodes & set(other.node_names)
            for other in self.partitions
        )


def version(cluster: Cluster) -> Finding:
    text = cluster.value("SLURM_VERSION")
    found = tuple(int(part) for part in re.findall(r"[0-9]+", text)[:2])
    if found >= TESTED:
        meaning = "newer than the tested 22.05" if found > TESTED else "the tested version"
        return fine("SLURM_VERSION", text, meaning)
    meaning = "the launcher was never tested with SLURM before 22.05"
    return costs_time("SLURM_VERSION", text, meaning, "try a short run with --nodes 2 first")


def silent_nodes(cluster: Cluster) -> Finding:
    seconds, text = cluster.number("SlurmdTimeout"), cluster.value("SlurmdTimeout")
    if 0 < seconds <= PATIENCE_SECONDS:
        return fine("SlurmdTimeout", text, f"a node that dies is declared down after {seconds} s")
    after = f"only after {seconds} s" if seconds else "only by an administrator"
    meaning = f"a node that dies is declared down {after}, and your run hangs until then"
    remedy = "set slurm.spare_nodes=1, or ask the administrator for SlurmdTimeout=60"
    return costs_time("SlurmdTimeout", text, meaning, remedy)


def returning_nodes(cluster: Cluster) -> Finding:
    text = cluster.value("ReturnToService")
    if cluster.number("ReturnToService"):
        return fine("ReturnToService", text, "a node that stopped responding comes back by itself")
    meaning = "a node that stopped responding stays down until an administrator resumes it"
    remedy = "see sinfo -R if a run stays pending; ask the administrator for ReturnToService=1"
    return costs_time("ReturnToService", text, meaning, remedy)


def requeue_delay(cluster: Cluster) -> Finding:
    match = re.search(r"cred_expire=([0-9]+)", cluster.value("AuthInfo"))
    seconds = 1 + (int(match[1]) if match else 120)
    setting, value = "AuthInfo", f"cred_expire={seconds - 1}{'' if match else ' (default)'}"
    if seconds <= STOP_SECONDS:
        return fine(setting, value, f"a requeued run can start again after {seconds} s")
    meaning = f"a requeued run waits {seconds} s, even on an empty cluster"
    remedy = "keep `python launch/watch.py` running: it starts the run at once"
    return costs_time(setting, value, meaning, remedy)


def requeueing(cluster: Cluster) -> Finding:
    meaning = "your runs are requeued either way: the launcher passes --requeue to sbatch"
    return fine("JobRequeue", cluster.value("JobRequeue"), meaning)


def notice_of_the_end(cluster: Cluster) -> Finding:
    seconds, text = cluster.number("KillWait"), cluster.value("KillWait")
    if seconds >= STOP_SECONDS // 2:
        return fine("KillWait", text, f"ranks have {seconds} s to save when their job is ended")
    meaning = f"if your job is requeued, its ranks have {seconds} s to finish a step and save"
    remedy = "set checkpoint.every_steps lower, or ask the administrator for KillWait=30"
    return costs_work("KillWait", text, meaning, remedy)


def preemption(cluster: Cluster) -> Finding | None:
    if not cluster.chosen:
        return None
    names = ", ".join(partition.name for partition in cluster.preemptable)
    value = f"{cluster.value('PreemptType') or 'none'}, {cluster.value('PreemptMode')}"
    if not names:
        return fine("PreemptType", value, "no other job preempts yours")
    modes = {mode for each in cluster.preemptable for mode in cluster.preempt_mode(each).split(",")}
    where = f"in {names}, a preempted job"
    if "CANCEL" in modes or "OFF" in modes:
        remedy = "start it again with launch/resume.py, or ask for PreemptMode=REQUEUE"
        return costs_work("PreemptMode", value, f"{where} is ended for good", remedy)
    if "REQUEUE" in modes:
        return fine("PreemptMode", value, f"{where} saves, requeues and resumes")
    meaning = f"{where} is suspended: its connections may break, and its ranks restart"
    return costs_time("PreemptMode", value, meaning, "ask for PreemptMode=REQUEUE")


def notice_of_preemption(cluster: Cluster) -> Finding | None:
    if not cluster.preemptable:
        return None
    if cluster.value("PreemptType") == "preempt/qos":
        remedy = "see sacctmgr show qos format=name,gracetime: 60 s are enough"
        meaning = "the QOS decides how long ranks have to save when their job is preempted"
        return costs_time("GraceTime", "of the QOS", meaning, remedy)
    least = min(cluster.preemptable, key=lambda partition: partition.grace_seconds)
    seconds = least.grace_seconds + cluster.number("KillWait")
    setting, value = f"GraceTime of {least.name}", least.grace_seconds
    meaning = f"with KillWait, ranks of a preempted job have {seconds} s to save"
    if seconds >= STOP_SECONDS:
        return fine(setting, value, meaning)
    remedy = f"set checkpoint.every_steps lower, or ask for GraceTime={STOP_SECONDS}"
    return costs_work(setting, value, f"{meaning}: too little for slow steps", remedy)


def signal_of_preemption(cluster: Cluster) -> Finding | None:
    if not cluster.preemptable:
        return None
    sent = "preempt_send_user_signal" in cluster.words("SlurmctldParameters")
    meaning = f"{'SIGUSR2' if sent else 'SIGTERM'} tells the ranks to save"
    return fine("preempt_send_user_signal", "set" if sent else "not set", meaning)


def orphans(cluster: Cluster) -> Finding:
    text = cluster.value("ProctrackType")
    if text == "proctrack/cgroup":
        return fine("ProctrackType", text, "no process outlives its job")
    meaning = "a process may outlive its job and keep its GPU memory, which your run then lacks"
    remedy = "exclude such nodes (slurm.exclude); ask the administrator for proctrack/cgroup"
    return costs_time("ProctrackType", text, meaning, remedy)


def neighbours(cluster: Cluster) -> Finding:
    text = cluster.value("TaskPlugin")
    if "cgroup" not in text:
        meaning = "jobs on one node are not confined to their own CPUs and GPUs"
    elif cluster.value("ConstrainDevices").lower() == "no":
        text, meaning = f"{text}, ConstrainDevices=no", "jobs on one node can see each other's GPUs"
    else:
        return fine("TaskPlugin", text, "jobs on one node are confined to their own resources")
    remedy = "ask for whole nodes: slurm.sbatch={exclusive: true}"
    return costs_time("TaskPlugin", text, meaning, remedy)


def failing_ranks(cluster: Cluster) -> Finding:
    meaning = "a failed rank ends the others either way: the launcher passes this option to srun"
    return fine("KillOnBadExit", cluster.value("KillOnBadExit"), meaning)


def codes_that_requeue(cluster: Cluster) -> Finding | None:
    for name, what in (("RequeueExit", "is requeued"), ("RequeueExitHold", "is requeued and held")):
        codes = {code for word in cluster.words(name) for code in _range(word)}
        if FAILURE in codes:
            meaning = f"a run that was given up {what}, because its exit code is {FAILURE}"
            remedy = "end such a run with launch/cancel.py"
            return costs_time(name, cluster.value(name), meaning, remedy)
    return None


def held_jobs(cluster: Cluster) -> Finding | None:
    parameters = cluster.words("SchedulerParameters")
    if not cluster.value("Prolog") or "nohold_on_prolog_fail" in parameters:
        return None
    meaning = "if the prolog fails on a node, your job is held until it is released"
    remedy = "run scontrol release JOB; ask for SchedulerParameters=nohold_on_prolog_fail"
    return costs_time("Prolog", cluster.value("Prolog"), meaning, remedy)


def accounting(cluster: Cluster) -> Finding:
    text = cluster.value("AccountingStorageType") or "none"
    if text.endswith("slurmdbd"):
        return fine("AccountingStorageType", text, "sacct lists jobs that have ended")
    age = cluster.number("MinJobAge")
    meaning = f"SLURM forgets a job {age} s after its end; the run folder has all you need"
    return fine("AccountingStorageType", text, meaning)


def arrays(cluster: Cluster) -> Finding:
    size = cluster.number("MaxArraySize")
    if size > 1:
        return fine("MaxArraySize", size, f"a job array has at most {plural(size - 1, 'element')}")
    remedy = "submit the runs of a sweep one by one"
    return costs_time(
        "MaxArraySize", size, "job arrays are disabled, so no sweep can be queued", remedy
    )


def locked_memory(cluster: Cluster) -> Finding | None:
    passed_on = {"ALL", "MEMLOCK"} & set(cluster.words("PropagateResourceLimits"))
    if not passed_on or "MEMLOCK" in cluster.words("PropagateResourceLimitsExcept"):
        return None
    if all(partition.is_this_host for partition in cluster.chosen):
        return None  # the ranks need no network
    limit = cluster.locked_memory_bytes
    if limit == resource.RLIM_INFINITY:
        return fine("ulimit -l", "unlimited", "ranks get this limit: NCCL can pin what it needs")
    meaning = "ranks get this limit from your shell, which is too low for NCCL over InfiniBand"
    remedy = "set slurm.sbatch={propagate: NONE}, or run `ulimit -l unlimited` before submitting"
    return costs_work("ulimit -l", f"{limit // 1024:,} kB", meaning, remedy)


def private_folders(cluster: Cluster) -> Finding | None:
    text, stage = cluster.value("JobContainerType"), cluster.stage
    if not text.endswith("tmpfs") or stage is None or Path("/tmp") not in stage.parents:  # noqa: S108
        return None
    meaning = f"each job has its own /tmp, so each copies the dataset to data.stage={stage} again"
    return costs_time("JobContainerType", text, meaning, "set data.stage to another local disk")


def time_limits(cluster: Cluster) -> Finding | None:
    bounded = [each for each in cluster.chosen if each.max_minutes is not None]
    if not bounded:
        return None
    least = min(bounded, key=lambda partition: partition.max_minutes or 0)
    setting, value = f"MaxTime of {least.name}", limit_text(least.max_minutes)
    meaning = "a run may take longer: at each limit it saves, requeues and resumes"
    if (least.max_minutes or 0) >= 60:
        return fine(setting, value, meaning)
    return costs_time(setting, value, meaning, "set slurm.partition to one with a longer limit")


def nodes_in_service(cluster: Cluster) -> Finding | None:
    nodes = {node.name: node for each in cluster.chosen for node in each.nodes}
    missing = [node.name for node in nodes.values() if not node.is_usable]
    if not missing:
        return None
    names = ", ".join(missing[:5]) + ", ..." * (len(missing) > 5)
    meaning = f"no jobs can start on {names} now"
    return costs_time("nodes", f"{len(missing)} out of service", meaning, "sinfo -R says why")


RULES: tuple[Callable[[Cluster], Finding | None], ...] = (
    version,
    nodes_in_service,
    time_limits,
    silent_nodes,
    returning_nodes,
    requeue_delay,
    requeueing,
    notice_of_the_end,
    preemption,
    notice_of_preemption,
    signal_of_preemption,
    codes_that_requeue,
    held_jobs,
    failing_ranks,
    orphans,
    neighbours,
    locked_memory,
    private_folders,
    accounting,
    arrays,
)


def _range(word: str) -> range:
    """Return the exit codes of an item such as 1 or 10-15."""
    numbers = [int(number) for number in re.findall(r"[0-9]+", word)] or [0]
    return range(numbers[0], numbers[-1] + 1)
