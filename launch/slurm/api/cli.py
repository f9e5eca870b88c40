"""SLURM's own commands, each with a time limit and readable errors."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from launch.slurm.api.environment import for_commands

T = TypeVar("T")
ANSWER_SECONDS = 60.0
PATIENCE_SECONDS = 600.0
"""How long a running job waits for a controller that is down."""
PAUSE_SECONDS = 2.0
FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z:/]*)=(.*?)(?=\s[A-Z][A-Za-z:/]*=|\s*$)")
"""`Key=Value` of `scontrol --oneliner`; values may contain spaces."""


class SlurmError(ValueError):
    """A SLURM command failed or did not answer."""


def slurm(*command: str, seconds: float = ANSWER_SECONDS) -> str:
    """Run one of SLURM's commands; return what it prints.

    Raises `SlurmError` if it fails or does not end within `seconds`.
    """
    try:
        answer = subprocess.run(
            command,
            env=for_commands(os.environ),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]} is not on PATH; run this on a SLURM login node") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{' '.join(command)} did not answer within {seconds:.0f} s; is slurmctld up?"
        ) from error
    if answer.returncode:
        said = answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.returncode}"
        raise SlurmError(f"{' '.join(command)}: {said}")
    return answer.stdout


def retry(ask: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Return the result of `ask`, retried while SLURM fails: it may be restarting.

    Raises `SlurmError` if it still fails after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except SlurmError:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def show(entity: str, *names: str) -> list[dict[str, str]]:
    """Return the records of `scontrol show`: jobs, nodes or partitions; all without `names`.

    Hidden partitions are included: a user may submit to them.
    """
    text = slurm("scontrol", "--all", "--oneliner", "show", entity, *names)
    return [record for line in text.splitlines() if (record := dict(_fields(line)))]


def show_config() -> dict[str, str]:
    """Return the cluster's settings, from slurm.conf and SLURM's defaults."""
    lines = slurm("scontrol", "show", "config").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cluster_name() -> str:
    """Return the name of the cluster that SLURM's commands ask."""
    return _cluster_name(*(os.environ.get(name) for name in ("SLURM_CONF", "SLURM_CLUSTERS")))


@cache
def _cluster_name(*_choice: str | None) -> str:
    return show_config().get("ClusterName", "")


def host_names(node_list: str) -> list[str]:
    """Return the nodes of a list such as n[1-3,5]."""
    return slurm("scontrol", "show", "hostnames", node_list).split() if node_list else []


def _fields(line: str) -> Iterator[tuple[str, str]]:
    for match in FIELD.finditer(line):
        yield match[1], match[2].strip()
