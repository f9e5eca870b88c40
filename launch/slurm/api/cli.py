"""SLURM's own commands, each with a time limit and readable errors."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
ANSWER_SECONDS = 60
PATIENCE_SECONDS = 600.0
"""How long a running job waits for a controller that is down."""
PAUSE_SECONDS = 2.0
FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z:/]*)=(.*?)(?=\s[A-Z][A-Za-z:/]*=|\s*$)")
"""`Key=Value` of `scontrol --oneliner`; values may contain spaces."""


class SlurmError(ValueError):
    """A SLURM command failed or did not answer."""


def slurm(*command: str) -> str:
    """Run one of SLURM's commands; return what it prints. Raises `SlurmError` if it fails."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]} is not on PATH; run this on a SLURM login node") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{' '.join(command)} did not answer within {ANSWER_SECONDS} s; is slurmctld up?"
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
    """Return the records of `scontrol show`: jobs, nodes or partitions; all without `names`."""
    text = slurm("scontrol", "--oneliner", "show", entity, *names)
    return [record for line in text.splitlines() if (record := dict(_fields(line)))]


def show_config() -> dict[str, str]:
    """Return the cluster's settings, from slurm.conf and SLURM's defaults."""
    lines = slurm("scontrol", "show", "config").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def host_names(node_list: str) -> list[str]:
    """Return the nodes of a list such as n[1-3,5]."""
    return slurm("scontrol", "show", "hostnames", node_list).split() if node_list else []


def _fields(line: str) -> Iterator[tuple[str, str]]:
    for match in FIELD.finditer(line):
        yield match[1], match[2].strip()
