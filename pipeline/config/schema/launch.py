"""The sections `launch` and `env`: what happens around the start of the ranks, on any machine."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from pipeline.config.schema.section import section, without_nulls

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
    """What is checked and told before the first step."""

    preflight: bool = True
    """Take ten seconds before the first step for the bandwidth between ranks, and a matrix product
    of each; a slow one is named. Ranks that share the CPUs of one machine are not compared."""
    start_report: bool = True
    """Tell of each node at the start: devices, versions, network, cores, clock and free space."""


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a variable; use letters, digits and _, and no digit first"
        )
    if name in OF_THE_LAUNCHER:
        raise ValueError(f"{name!r} is set by the launcher for each rank; remove it")
    return name


def _passable(text: str) -> str:
    if "\0" in text:
        raise ValueError("no variable can hold the character \\0; remove it")
    return text


Environment = Annotated[
    dict[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_passable)]],
    BeforeValidator(without_nulls, json_schema_input_type=dict[str, str | int | float | None]),
]
