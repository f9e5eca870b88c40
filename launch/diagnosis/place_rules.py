"""Rules about the places that a run uses: folders, the container and MLflow's store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launch.diagnosis.finding import Finding, costs_time, costs_work, fine
from pipeline.system.text import size

FREE_BYTES = 10 * 10**9
SKEW_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Folder:
    """The facts about a folder, which need not exist yet."""

    setting: str
    path: Path
    where: str
    """Its file system."""
    is_shared: bool | None
    must_be: Literal["shared", "local", "anything"]
    is_written: bool
    free_bytes: int
    trouble: str = ""
    """Why a file there could not be created or locked; empty if it could."""
    skew_seconds: float = 0.0
    """How far the file system's clock is ahead of this machine's."""

    @property
    def value(self) -> str:
        return f"{self.path} on {self.where}"


def sharing(folder: Folder) -> Finding:
    if folder.must_be == "shared" and folder.is_shared is False:
        meaning = "other nodes cannot see it, and their ranks cannot start"
        remedy = f"set {folder.setting} to a folder on a shared file system"
        if folder.setting == "runs_dir":
            remedy += ", or slurm.run_dir_is_shared=true if all nodes do see it"
        return costs_work(folder.setting, folder.value, meaning, remedy)
    if folder.must_be == "local" and folder.is_shared:
        meaning = "it is not a local disk, so copying the dataset there gains nothing"
        return costs_time(folder.setting, folder.value, meaning, "set it to a local disk, or null")
    if folder.must_be == "shared" and folder.is_shared is None:
        meaning = "this kind of file system does not show whether other nodes see it"
        return fine(folder.setting, folder.value, meaning)
    return fine(folder.setting, folder.value, "visible to every node that needs it")


def usable(folder: Folder) -> Finding | None:
    if not folder.trouble:
        return None
    meaning = f"runs cannot use it: {folder.trouble}"
    remedy = f"fix that, or set {folder.setting} to another folder"
    return costs_work(folder.setting, folder.value, meaning, remedy)


def room(folder: Folder) -> Finding | None:
    if not folder.is_written:
        return None
    setting, value = f"free in {folder.setting}", size(folder.free_bytes)
    if folder.free_bytes >= FREE_BYTES:
        return fine(setting, value, "enough space")
    meaning = "checkpoints cannot be saved once the disk is full"
    remedy = f"free some space, or set {folder.setting} to another folder"
    return costs_work(setting, value, meaning, remedy)


def clock(folder: Folder) -> Finding | None:
    if not folder.is_written:
        return None
    setting, value = f"clock of {folder.setting}", f"{folder.skew_seconds:+.1f} s"
    if abs(folder.skew_seconds) <= SKEW_SECONDS:
        return fine(setting, value, "agrees with this machine's")
    meaning = "times in logs and of files disagree, and the time limit may be misjudged"
    return costs_time(setting, value, meaning, "ask the administrator to run chrony everywhere")


RULES: tuple[Callable[[Folder], Finding | None], ...] = (sharing, usable, room, clock)


@dataclass(frozen=True, slots=True)
class TrackingStore:
    """The facts about MLflow's store."""

    uri: str
    error: str = ""
    """Why the server does not answer; empty if it does, or if the store is a file."""
    shared_file: bool = False
    """Whether it is a database file on a network file system."""
    refusal: str = ""
    """Why MLflow would refuse it for good."""


def tracking(store: TrackingStore) -> Finding:
    if store.refusal:
        meaning, _, remedy = store.refusal.partition("; ")
        return costs_work("tracking.uri", store.uri, f"it {meaning}: no run starts", remedy)
    if store.error:
        meaning = f"it does not answer ({store.error}); runs train without it and are shown later"
        return costs_time("tracking.uri", store.uri, meaning, "start it, or set tracking.uri")
    if store.shared_file:
        meaning = "locks of sqlite are slow or fail on a network, so charts may lag behind"
        remedy = "run a server (python launch/dashboard.py) and set tracking.uri to it"
        return costs_time("tracking.uri", store.uri, meaning, remedy)
    return fine("tracking.uri", store.uri, "answers, or will be created by the first run")


def container(runtime: str, *, is_there: bool) -> Finding:
    """Judge whether the image of `slurm.container` can be started."""
    setting = "slurm.container.runtime"
    if is_there:
        return fine(setting, runtime, "installed")
    if runtime == "pyxis":
        meaning = "srun has no option --container-image, so no rank can start"
        remedy = "ask the administrator for pyxis and enroot, or set the runtime to apptainer"
        return costs_work(setting, runtime, meaning, remedy)
    meaning = "apptainer is not on PATH here; if the nodes also lack it, no rank can start"
    remedy = "load its module in slurm.setup, or ask the administrator for it"
    return costs_work(setting, runtime, meaning, remedy)
