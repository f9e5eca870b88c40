"""The sections `launch` and `env`: checks at the start, and the variables of the ranks."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.config.schema.section import section, without_nulls
from pipeline.config.schema.store import usable_store

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OF_THE_LAUNCHER = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
}


@section
class Launch:
    """Checks and reports before the first step."""

    preflight: bool = True
    """Measure the bandwidth between ranks and a matrix product on each, for ten seconds before the
    first step, and name slow ranks. Ranks that share the CPUs of a machine are not compared."""
    start_report: bool = True
    """Report devices, versions, network, cores, clock and free space of each node at the start."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one GPU for one hour, in any currency. If set, the result and launch/status.py show
    the cost of the run."""


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a valid name of a variable; use letters, digits and _, and start with"
            " a letter or _"
        )
    if name in OF_THE_LAUNCHER:
        raise ValueError(f"{name!r} is set by the launcher for each rank; remove it")
    return name


def _passable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a variable cannot contain the character \\0; remove it")
    return text


def _usable(variables: dict[str, str]) -> dict[str, str]:
    if uri := variables.get("MLFLOW_TRACKING_URI"):
        try:
            usable_store(uri)
        except ValueError as error:
            raise ValueError(f"MLFLOW_TRACKING_URI {error}") from None
    return variables


Environment = Annotated[
    dict[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_passable)]],
    AfterValidator(_usable),
    BeforeValidator(without_nulls, json_schema_input_type=dict[str, str | int | float | None]),
]
