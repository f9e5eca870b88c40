"""The trainer's side of shipping to MLflow: starts the process and restarts it if it dies."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pipeline
from pipeline.tracking.events import Event
from pipeline.tracking.spool import Shipped, unshipped_bytes
from pipeline.tracking.store_uri import VARIABLE, public_uri

LOG = "mlflow.log"
POLL_SECONDS = 0.1
RESTART_SECONDS = 60.0
GIVE_UP_SECONDS = 600.0
"""How long it retries after the trainer has ended."""


class Sidecar:
    """Ships a run's events during the `with` block, and the rest after it in the background.

    It is a listener, so that it can restart a process that died. Problems with tracking raise
    nothing: the methods return None or False, and the caller may warn.
    """

    def __init__(self, command: list[str], run_dir: Path, uri: str) -> None:
        self._command = command
        self._run_dir = run_dir
        self._uri = uri
        self._process: subprocess.Popen[bytes] | None = None
        self._launched = -RESTART_SECONDS

    @staticmethod
    def start(
        run_dir: Path, *, uri: str, experiment: str, give_up_seconds: float = GIVE_UP_SECONDS
    ) -> "Sidecar":
        """Start shipping the run in `run_dir` to the store at `uri`; the log is mlflow.log."""
        command = [sys.executable, "-P", "-m", "pipeline.tracking.ship", str(run_dir.resolve())]
        command += ["--attended", "--experiment", experiment]
        command += ["--give-up-seconds", str(give_up_seconds)]
        sidecar = Sidecar(command, run_dir.resolve(), uri)
        sidecar._launch()
        return sidecar

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pipe to the process, which ships the rest and ends."""
        if self._process is not None:
            _release(self._process)
            self._process = None

    @property
    def pid(self) -> int | None:
        """Process id of the sidecar; None if it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def on_event(self, event: Event) -> None:  # noqa: ARG002 - any event triggers the check
        """Restart the process if it died, at most every RESTART_SECONDS."""
        if self.pid is None and time.monotonic() - self._launched >= RESTART_SECONDS:
            self._launch()

    def await_run_id(self, timeout_seconds: float) -> str | None:
        """Return MLflow's id of the run, or None if it has none within `timeout_seconds`.

        MLflow creates the run when the first event is in the file.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            run_id = state.run_id if (state := self._state()) else ""
            if run_id:
                return run_id
            if self.pid is None or time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until MLflow has all events written so far; return False after `timeout_seconds`."""
        deadline = time.monotonic() + timeout_seconds
        goal = unshipped_bytes(self._run_dir, 0)
        if self.pid is None:
            self._launch()
        while True:
            state = self._state()
            if state is not None and state.offset >= goal:
                return True
            if self.pid is None or time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)

    def _state(self) -> Shipped | None:
        state = Shipped.load(self._run_dir)
        return state if state and state.uri == public_uri(self._uri) else None

    def _launch(self) -> None:
        self._launched = time.monotonic()
        if self._process is not None:
            _release(self._process)
            self._process = None
        with contextlib.suppress(OSError), (self._run_dir / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=shipping_environment(self._uri),
                start_new_session=True,  # Ctrl-C is for the trainer alone
            )


def shipping_environment(uri: str) -> dict[str, str]:
    """Return the environment of a process that ships to the store at `uri`, also uninstalled."""
    root = str(Path(pipeline.__path__[0]).parent)
    return os.environ | {
        VARIABLE: uri,  # it may contain a password, and all users see command lines
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def unshipped_runs(runs_dir: Path, uri: str) -> list[Path]:
    """Return the runs under `runs_dir` that are not fully shipped to the store at `uri`."""
    found: list[Path] = []
    for folder in sorted(
        [*runs_dir.glob("*/"), *runs_dir.glob("*/*/")]
    ):  # including runs of sweeps
        state = Shipped.load(folder)
        if state and state.uri == public_uri(uri):
            behind = unshipped_bytes(folder, state.offset) > 0
            found += [folder] if behind else []
    return found


def _release(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, so that the process ends, and wait for that in the background."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    threading.Thread(target=process.wait, name="mlflow-sidecar-end", daemon=True).start()
