"""Rules about the places that a run reads and writes: folders, containers and MLflow's store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.diagnosis.finding import Finding, costs_time, costs_work, fine

FREE_BYTES = 10 * 10**9
SKEW_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Folder:
    """What there is to know of a folder, or of where it would be made."""

    setting: str
    path: Path
    where: str
    """Its file system."""
    is_shared: bool | None
    must_be: Literal["shared", "local", "anything"]
    is_written: bool
    free_bytes: int
    trouble: str = ""
    """Why it cannot be used, found out by making and locking a file; empty if it can."""
    skew_seconds: float = 0.0
    """By how much the file system's clock is ahead of this machine's."""

    @property
    def value(self) -> str:
        return f"{self.path} on {self.where}"


def sharing(folder: Folder) -> Finding:
    """Judge whether those see it that should."""
    if folder.must_be == "shared" and folder.is_shared is False:
        meaning = "other nodes do not see it, and their ranks cannot start"
        remedy = f"set {folder.setting} to a folder on a shared file system"
        if folder.setting == "runs_dir":
            remedy += ", or slurm.run_dir_is_shared=true if all nodes do see it"
        return costs_work(folder.setting, folder.value, meaning, remedy)
    if folder.must_be == "local" and folder.is_shared:
        meaning = "it is no disk of a node's own, so that copying there gains nothing"
        return costs_time(folder.setting, folder.value, meaning, "name a local disk, or none")
    if folder.must_be == "shared" and folder.is_shared is None:
        meaning = "whether other nodes see it, its kind of file system does not tell"
        return fine(folder.setting, folder.value, meaning)
    return fine(folder.setting, folder.value, "seen by all that need it")


def usable(folder: Folder) -> Finding | None:
    if not folder.trouble:
        return None
    meaning = f"runs cannot use it: {folder.trouble}"
    remedy = f"mend that, or set {folder.setting} to another folder"
    return costs_work(folder.setting, folder.value, meaning, remedy)


def room(folder: Folder) -> Finding | None:
    if not folder.is_written:
        return None
    setting, value = f"free in {folder.setting}", f"{folder.free_bytes / 1e9:,.1f} GB"
    if folder.free_bytes >= FREE_BYTES:
        return fine(setting, value, "room for checkpoints, or copies")
    meaning = "a checkpoint that finds no room is lost"
    return costs_work(setting, value, meaning, f"free some, or set {folder.setting} to another")


def clock(folder: Folder) -> Finding | None:
    if not folder.is_written:
        return None
    setting, value = f"clock of {folder.setting}", f"{folder.skew_seconds:+.1f} s"
    if abs(folder.skew_seconds) <= SKEW_SECONDS:
        return fine(setting, value, "it and this machine's agree")
    meaning = "times in logs and of files differ, and the time limit may be misjudged"
    return costs_time(setting, value, meaning, "ask the administrator to run chrony everywhere")


RULES: tuple[Callable[[Folder], Finding | None], ...] = (sharing, usable, room, clock)


@dataclass(frozen=True, slots=True)
class Store:
    """MLflow's store; a server that does not answer has an error."""

    uri: str
    error: str = ""
    shared_file: bool = False
    """Whether it is a database file on a file system of the network."""


def tracking(store: Store) -> Finding:
    """Judge whether the run will be seen in MLflow."""
    if store.error:
        meaning = f"it does not answer ({store.error}): runs train on, and are shown later"
        return costs_time("tracking.uri", store.uri, meaning, "start it, or set tracking.uri")
    if store.shared_file:
        meaning = "sqlite's locks are slow, or fail, on a network: what is shown may lag behind"
        remedy = "run a server (python launch/dashboard.py) and set tracking.uri to it"
        return costs_time("tracking.uri", store.uri, meaning, remedy)
    return fine("tracking.uri", store.uri, "answers, or is made with the first run")


def container(runtime: str, *, is_there: bool) -> Finding:
    """Judge whether the image of `slurm.container` can be started."""
    if is_there:
        return fine("slurm.container.runtime", runtime, "it is here")
    if runtime == "pyxis":
        meaning = "srun knows no --container-image, so that no rank starts"
        remedy = "ask the administrator for pyxis and enroot, or set the runtime to apptainer"
        return costs_work("slurm.container.runtime", runtime, meaning, remedy)
    meaning = "apptainer is not on PATH here; if it is not on the nodes either, no rank starts"
    remedy = "load its module in slurm.setup, or ask the administrator for it"
    return costs_work("slurm.container.runtime", runtime, meaning, remedy)
