"""The section `slurm`: what is asked of the cluster, and when a run is given up."""

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.config.schema.section import Count, Line, one_line, section, without_nulls

TIME_LIMIT = re.compile(r"(?:([0-9]{1,7})-)?([0-9]{1,7}(?::[0-9]{1,7}){0,2})")
MEMORY = re.compile(r"[0-9]+[KMGT]?")
OPTION = re.compile(r"[a-z][a-z0-9-]+")
OF_THE_LAUNCHER = {
    "array",
    "error",
    "job-name",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
}
OF_A_FIELD = {
    "account": "account",
    "constraint": "constraint",
    "cpus-per-task": "cpus_per_rank",
    "exclude": "exclude",
    "gpus-per-node": "gpus_per_node",
    "mail-type": "mail_type",
    "mail-user": "mail_user",
    "mem": "memory",
    "partition": "partition",
    "qos": "qos",
    "reservation": "reservation",
    "time": "time_limit",
}
"""Options of sbatch that have a field here, by which alone they are set."""


def minutes_of(time_limit: str) -> int:
    """Whole minutes, rounded up, of a time limit as SLURM takes it; at least 1.

    Raises `ValueError` if it is not one.
    """
    match = TIME_LIMIT.fullmatch(time_limit)
    if not match:
        raise ValueError(
            'is no time limit of SLURM\'s; write "90" (minutes), "12:00:00", "2-00" (days-hours) or'
            ' "2-12:30:00"'
        )
    days, clock = match.groups()
    parts = [int(part) for part in clock.split(":")]
    if days is None and len(parts) < 3:  # then it begins with minutes, else with hours
        parts.insert(0, 0)
    hours, minutes, seconds = [*parts, 0, 0][:3]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError("must be longer than nothing; null is the partition's own limit")
    return -(-total // 60)


def _time_limit(text: str) -> str:
    minutes_of(text)
    return text


def _memory(text: str) -> str:
    if not MEMORY.fullmatch(text):
        raise ValueError('must be a number with K, M, G or T, such as 64G, or "0" for all')
    return text


def _option(name: str) -> str:
    if name in OF_THE_LAUNCHER:
        raise ValueError(f"{name!r} is set by the launcher; remove it")
    if name in OF_A_FIELD:
        raise ValueError(f"{name!r} has a field of its own; set slurm.{OF_A_FIELD[name]}")
    if not OPTION.fullmatch(name):
        raise ValueError(f"{name!r} is no option; write it as for sbatch, less the two dashes")
    return name


def _setting(value: Any) -> str | int | bool:
    match value:
        case str():
            return one_line(value)
        case bool() | int():
            return value
        case _:
            raise ValueError("must be a word, a whole number, true or false")


def _argument(text: str) -> str:
    if not re.match(r"--[a-z]", text):
        raise ValueError("must be an option of srun's, with its dashes: --cpu-bind=none")
    return text


def _mount(text: str) -> str:
    if "," in text:
        raise ValueError("has a comma; give each mount as an item of its own")
    return text


# The values' own validator comes first, for a union that fails would tell of each of its members.
Options = Annotated[
    dict[
        Annotated[str, AfterValidator(_option)],
        Annotated[str | int | bool, BeforeValidator(_setting)],
    ],
    BeforeValidator(without_nulls, json_schema_input_type=dict[str, str | int | bool | None]),
]


@section
class Container:
    """The image that the ranks run in, on every node."""

    image: Line
    """As the runtime takes it: a file, or an address in a registry."""
    runtime: Literal["pyxis", "apptainer"] = "pyxis"
    """Who starts it: pyxis, a plugin of srun's (with enroot), or the program apptainer."""
    mounts: tuple[Annotated[Line, AfterValidator(_mount)], ...] = ()
    """Folders of the node to be seen inside, each as SOURCE:TARGET or SOURCE:TARGET:ro."""


@section
class Slurm:
    """What is asked of a SLURM cluster, and how often a run may be started again."""

    partition: Line | None = None
    """Which queue; by default the cluster's default one."""
    account: Line | None = None
    """Who is charged."""
    qos: Line | None = None
    """Quality of service."""
    constraint: Line | None = None
    """Features that the nodes must have: "a100&infiniband"."""
    exclude: Line | None = None
    """Nodes that are not to be used: "node[3-5],node9"."""
    reservation: Line | None = None
    """A reservation of the cluster's to run in."""
    mail_user: Line | None = None
    """Who is sent mail; by default whoever submits."""
    mail_type: Line | None = None
    """Of what mail is sent: "END,FAIL"."""
    time_limit: Annotated[Line, AfterValidator(_time_limit)] | None = None
    """How long one job may take, as SLURM writes it: "90" or "90:00" is 90 minutes, "12:00:00" is
    12 hours, "2-12:30" is 2 days and 12.5 hours. By default the partition's. Keep the quotes: to
    many readers of YAML, 12:00:00 without them is a number."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs of each node; by default as many as the partition offers."""
    ranks_per_node: Count | None = None
    """Processes of each node; by default one for each GPU, or 1 on nodes without."""
    cpus_per_rank: Count | None = None
    """CPUs of each rank; by default its share of the node's."""
    memory: Annotated[Line, AfterValidator(_memory)] | None = None
    """Memory of each node, in megabytes or with a unit: 64G; "0" is all of it. By default the
    partition's."""
    spare_nodes: Annotated[int, Field(ge=0)] = 0
    """Nodes more than the run needs, in the same job: one of them takes the place of a node that
    fails, at once."""
    stop_notice_seconds: Annotated[int, Field(ge=30)] = 120
    """How long before the time limit the ranks are asked to save and stop, in seconds."""
    attempts_without_progress: Count = 3
    """Attempts in a row that may fail without a new checkpoint before the run is given up."""
    time_limits: Count | None = None
    """How many time limits the run may reach, each going on where the last one stopped; null is no
    bound."""
    preemptions: Count | None = None
    """How often the run may be preempted; null is no bound."""
    sbatch: Options = field(default_factory=dict[str, str | int | bool])
    """More options of sbatch, without their dashes: {nice: 100, exclusive: true}. true is an option
    without a value, false leaves it out, and null takes it out of this list."""
    srun: tuple[Annotated[Line, AfterValidator(_argument)], ...] = ()
    """More arguments of srun, with their dashes: ["--cpu-bind=none"]."""
    setup: tuple[Line, ...] = ()
    """Lines of shell that run before anything else, on the job's first node."""
    container: Container | None = None
    """The image that the ranks run in; by default they run in the environment of the submission."""
    run_dir_is_shared: bool | None = None
    """Whether all nodes see the run's folder; null judges by its kind of file system."""

    @property
    def time_limit_minutes(self) -> int | None:
        """Whole minutes, rounded up, of one job's time limit; None for the partition's own."""
        return None if self.time_limit is None else minutes_of(self.time_limit)

    @model_validator(mode="after")
    def _time_for_notice(self) -> "Slurm":
        minutes = self.time_limit_minutes
        if minutes is not None and self.stop_notice_seconds >= minutes * 60:
            raise ValueError(
                f"stop_notice_seconds={self.stop_notice_seconds} must be shorter than"
                f" time_limit={self.time_limit}; make it shorter, or the limit longer"
            )
        return self
