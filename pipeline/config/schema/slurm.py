"""The section `slurm`: what a job requests, and how often it is restarted."""

import re
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.config.schema.section import Count, Line, one_line, section, without_nulls

TIME_LIMIT = re.compile(r"(?:([0-9]{1,7})-)?([0-9]{1,7}(?::[0-9]{1,7}){0,2})")
MEMORY = re.compile(r"[0-9]+[KMGT]?")
GPUS = re.compile(r"(?:([A-Za-z0-9_.-]+):)?([0-9]{1,4})")
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
"""Options of sbatch that are set by a field of this section -> that field."""


def minutes_of(time_limit: str) -> int:
    """Return the minutes of a SLURM time limit, rounded up; at least 1.

    Raises `ValueError` if it is not a valid time limit.
    """
    match = TIME_LIMIT.fullmatch(time_limit)
    if not match:
        raise ValueError(
            'is not a SLURM time limit; write 90 (minutes), "12:00:00", "2-00" (days-hours) or'
            ' "2-12:30:00"'
        )
    days, clock = match.groups()
    parts = [int(part) for part in clock.split(":")]
    if days is None and len(parts) < 3:  # it starts with minutes, not hours
        parts.insert(0, 0)
    hours, minutes, seconds = [*parts, 0, 0][:3]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise ValueError("must be positive; null is the partition's limit")
    return -(-total // 60)


def _as_text(value: Any) -> Any:
    """Return a whole number as text, so that it needs no quotes in YAML."""
    return str(value) if type(value) is int else value


def _time_limit(text: str) -> str:
    minutes_of(text)
    return text


def _memory(text: str) -> str:
    if not MEMORY.fullmatch(text):
        raise ValueError("must be a number with K, M, G or T, such as 64G, or 0 for all")
    return text


def _gpus(value: Any) -> int | str:
    """Return a number, or text such as a100:4."""
    match value:
        case str() if found := GPUS.fullmatch(value):
            return value if found[1] else int(value)
        case int() if not isinstance(value, bool) and value < 0:
            raise ValueError("must be greater than or equal to 0")
        case int() if not isinstance(value, bool):
            return value
        case _:
            raise ValueError('must be a whole number such as 4, or a type and a number: "a100:4"')


def _option(name: str) -> str:
    if name in OF_THE_LAUNCHER:
        raise ValueError(f"{name!r} is set by the launcher; remove it")
    if name in OF_A_FIELD:
        raise ValueError(f"{name!r} has its own field; set slurm.{OF_A_FIELD[name]}")
    if not OPTION.fullmatch(name):
        raise ValueError(
            f"{name!r} is not an option; write it as for sbatch, without the two dashes"
        )
    return name


def _setting(value: Any) -> str | int | bool:
    match value:
        case str():
            return one_line(value)
        case bool() | int():
            return value
        case _:
            raise ValueError("must be text, a whole number, true or false")


def _argument(text: str) -> str:
    if not re.match(r"--[a-z]", text):
        raise ValueError("must be an option of srun with its dashes, such as --cpu-bind=none")
    return text


def _mount(text: str) -> str:
    if "," in text:
        raise ValueError("has a comma; write each mount as a separate item")
    return text


WholeNumberToo = BeforeValidator(_as_text, json_schema_input_type=str | int)
# Values are validated first: a union that fails would report a fault for each of its members.
Options = Annotated[
    dict[
        Annotated[str, AfterValidator(_option)],
        Annotated[str | int | bool, BeforeValidator(_setting)],
    ],
    BeforeValidator(without_nulls, json_schema_input_type=dict[str, str | int | bool | None]),
]


Gpus = Annotated[Annotated[int, Field(ge=0)] | str, BeforeValidator(_gpus)]


@section
class Container:
    """The image that ranks run in, on each node."""

    image: Line
    """File or registry address of the image, as the runtime takes it."""
    runtime: Literal["pyxis", "apptainer"] = "pyxis"
    """What starts the container: the srun plugin pyxis (with enroot), or the program apptainer."""
    mounts: tuple[Annotated[Line, AfterValidator(_mount)], ...] = ()
    """Folders of the node that the container sees, each as SOURCE:TARGET or SOURCE:TARGET:ro."""


@section
class Slurm:
    """What a job requests from SLURM, and how often a run is restarted."""

    partition: Line | None = None
    """Partition (queue). Of several, such as "main,urgent", the job starts in whichever has room
    first. By default the cluster's default partition."""
    account: Line | None = None
    """Account to charge."""
    qos: Line | None = None
    """Quality of service."""
    constraint: Line | None = None
    """Features that nodes must have, such as "a100&infiniband"."""
    exclude: Line | None = None
    """Nodes not to use, such as "node[3-5],node9"."""
    reservation: Line | None = None
    """Reservation to run in."""
    mail_user: Line | None = None
    """Address that mail is sent to. By default the user who submits."""
    mail_type: Line | None = None
    """Events that send mail, such as "END,FAIL"."""
    time_limit: Annotated[Line, WholeNumberToo, AfterValidator(_time_limit)] | None = None
    """Time limit of one job: 90 or "90:00" is 90 minutes, "12:00:00" is 12 hours, "2-12:30" is 2
    days and 12.5 hours. By default the partition's limit. Keep the quotes: some YAML readers take
    12:00:00 for a number."""
    gpus_per_node: Gpus | None = None
    """GPUs of each node: 8, or with their type, "a100:8". By default as many as the partition has
    per node."""
    ranks_per_node: Count | None = None
    """Processes on each node. By default one per GPU, or 1 on nodes without GPUs."""
    cpus_per_rank: Count | None = None
    """CPUs of each rank. By default its share of the node's CPUs."""
    memory: Annotated[Line, WholeNumberToo, AfterValidator(_memory)] | None = None
    """Memory of each node, in megabytes or with a unit, such as "64G"; 0 is all of it. By default
    the partition's setting."""
    spare_nodes: Annotated[int, Field(ge=0)] = 0
    """Extra nodes in the job. One of them replaces a node that fails, without queueing again."""
    stop_notice_seconds: Annotated[int, Field(ge=30)] = 120
    """How long before the time limit the run saves a checkpoint and stops, in seconds."""
    attempts_without_progress: Count = 3
    """Failed attempts in a row without a new checkpoint before the run is given up."""
    time_limits: Count | None = None
    """How many times the run may reach its time limit and be requeued. By default any number."""
    preemptions: Count | None = None
    """How many times the run may be preempted and requeued. By default any number."""
    sbatch: Options = field(default_factory=dict[str, str | int | bool])
    """More options of sbatch, without their dashes: `{nice: 100, exclusive: true}`. `true` is an
    option without a value, `false` leaves it out, and `null` removes it from this list."""
    srun: tuple[Annotated[Line, AfterValidator(_argument)], ...] = ()
    """More options of srun, with their dashes: `["--cpu-bind=none"]`."""
    setup: tuple[Line, ...] = ()
    """Shell commands that run first, on the first node of the job."""
    container: Container | None = None
    """The image that ranks run in. By default they run in the environment of the submission."""
    run_dir_is_shared: bool | None = None
    """Whether all nodes see the run folder. By default decided from its file system."""

    @property
    def gpu_type(self) -> str:
        """The requested type of GPU; empty for any."""
        return str(self.gpus_per_node or "").rpartition(":")[0]

    @property
    def gpu_count(self) -> int | None:
        """The number of GPUs of each node; None is all."""
        return None if self.gpus_per_node is None else int(str(self.gpus_per_node).split(":")[-1])

    @property
    def time_limit_minutes(self) -> int | None:
        """The time limit of one job in minutes, rounded up; None is the partition's limit."""
        return None if self.time_limit is None else minutes_of(self.time_limit)

    @model_validator(mode="after")
    def _time_for_notice(self) -> "Slurm":
        minutes = self.time_limit_minutes
        if minutes is not None and self.stop_notice_seconds >= minutes * 60:
            raise ValueError(
                f"stop_notice_seconds={self.stop_notice_seconds} must be shorter than"
                f" time_limit={self.time_limit}; reduce it, or raise the limit"
            )
        return self
