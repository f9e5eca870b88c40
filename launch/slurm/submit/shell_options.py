"""Options that a site's profile or a module sets in the shell: SBATCH_* variables.

For sbatch they would override the batch script. Here they fill in what the configuration leaves
open, so that they are checked, shown and recorded like the rest of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import ValidationError

from pipeline.config.schema import Slurm
from pipeline.system.secrets import hide_secrets

FIELDS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_GPUS_PER_NODE": "gpus_per_node",
    "SBATCH_MEM_PER_NODE": "memory",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_TIMELIMIT": "time_limit",
}
"""Variables that fill a field of the section `slurm`."""
OPTIONS = {
    "SBATCH_ACCTG_FREQ": "acctg-freq",
    "SBATCH_BATCH": "batch",
    "SBATCH_CORE_SPEC": "core-spec",
    "SBATCH_DELAY_BOOT": "delay-boot",
    "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_GPU_BIND": "gpu-bind",
    "SBATCH_GPU_FREQ": "gpu-freq",
    "SBATCH_GRES": "gres",
    "SBATCH_GRES_FLAGS": "gres-flags",
    "SBATCH_HINT": "hint",
    "SBATCH_MEM_BIND": "mem-bind",
    "SBATCH_MEM_PER_CPU": "mem-per-cpu",
    "SBATCH_MEM_PER_GPU": "mem-per-gpu",
    "SBATCH_NETWORK": "network",
    "SBATCH_POWER": "power",
    "SBATCH_PROFILE": "profile",
    "SBATCH_REQ_SWITCH": "switches",
    "SBATCH_SPREAD_JOB": "spread-job",
    "SBATCH_THREAD_SPEC": "thread-spec",
    "SBATCH_THREADS_PER_CORE": "threads-per-core",
    "SBATCH_USE_MIN_NODES": "use-min-nodes",
    "SBATCH_WCKEY": "wckey",
}
"""Variables that fill an option in `slurm.sbatch`."""
FLAGS = {"exclusive", "overcommit", "spread-job", "use-min-nodes"}
"""Options without a value, or with an optional one."""
MEMORY = ("mem-per-cpu", "mem-per-gpu")


class Ignored(ValueError):  # noqa: N818 - it only leaves a variable out
    """A variable is not used; gives the reason."""


def fill_from_shell(slurm: Slurm, variables: Mapping[str, str]) -> tuple[Slurm, list[str]]:
    """Return `slurm` with what it leaves open filled from SBATCH_* `variables`.

    The list has a sentence for each of them: what it sets, or why it is ignored.
    """
    notes: list[str] = []
    for name in sorted(variables):
        if not name.startswith("SBATCH_"):
            continue
        shown = hide_secrets(f"{name}={variables[name]} in this shell")
        try:
            slurm, setting = _fill(slurm, name, variables[name])
            notes.append(f"{shown} sets {setting}, which the configuration leaves open")
        except Ignored as why:
            notes.append(f"{shown} is ignored: {why}")
    return slurm, notes


def _fill(slurm: Slurm, name: str, value: str) -> tuple[Slurm, str]:
    """Return `slurm` with the variable's setting, and the name of that setting."""
    option = OPTIONS.get(name, "")
    if name == "SBATCH_GRES" and "gpu" in value:
        name, value = "SBATCH_GPUS_PER_NODE", _gpus_alone(value)
    if name in FIELDS:
        field = FIELDS[name]
        _expect_open(f"slurm.{field}", getattr(slurm, field))
        if field == "memory":
            _expect_no_memory(slurm)
        return _checked(lambda: replace(slurm, **{field: value})), f"slurm.{field}"
    if not option:
        raise Ignored("the launcher sets this option itself; others belong in slurm.sbatch")
    if option in MEMORY:
        _expect_no_memory(slurm)
    _expect_open(f"slurm.sbatch.{option}", slurm.sbatch.get(option))
    setting = _flag(value) if option in FLAGS else value
    filled = {**slurm.sbatch, option: setting}
    return _checked(lambda: replace(slurm, sbatch=filled)), f"slurm.sbatch.{option}"


def _gpus_alone(resources: str) -> str:
    """Return the GPUs of a node, such as "a100:4", if `resources` are nothing else."""
    kind, _, count = resources.removeprefix("gres:").partition(":")
    if kind != "gpu" or "," in resources:
        raise Ignored("set slurm.gpus_per_node, and the rest in slurm.sbatch.gres")
    return count or "1"


def _flag(value: str) -> str | bool:
    """Return the value of a flag, as sbatch reads it from a variable."""
    if value in ("", "yes", "exclusive") or (value.isdecimal() and int(value)):
        return True
    if value in ("user", "mcs"):
        return value
    raise Ignored("it does not set the option")


def _expect_open(setting: str, value: object) -> None:
    if value is not None:
        raise Ignored(f"the configuration has {setting}={value}")


def _expect_no_memory(slurm: Slurm) -> None:
    _expect_open("slurm.memory", slurm.memory)
    for option in MEMORY:
        _expect_open(f"slurm.sbatch.{option}", slurm.sbatch.get(option))


def _checked(fill: Callable[[], Slurm]) -> Slurm:
    try:
        return fill()
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Ignored(f"{reason}; correct or unset it") from error
