"""Passes each event of a run to the console, the event file and MLflow."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock

from pipeline.config.schema import Config, Tracking
from pipeline.system.command import plural
from pipeline.system.extras import MissingExtra, expect_installed
from pipeline.system.secrets import hide_secrets
from pipeline.tracking.console import Console
from pipeline.tracking.events import Event, Listener, Warned
from pipeline.tracking.jsonl import METRICS, Jsonl
from pipeline.tracking.sidecar import GIVE_UP_SECONDS, Sidecar
from pipeline.tracking.store_uri import default_uri, expect_usable, public_uri


class Tracker:
    """Passes events to the listeners, in order; thread-safe."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        sidecar: Sidecar | None = None,
        store: str = "",
        run_dir: Path = Path(),
    ) -> None:
        self._listeners, self._sidecar = listeners, sidecar
        self._store, self._run_dir = store, run_dir
        self._lock = Lock()

    def emit(self, event: Event) -> None:
        """Pass `event` to every listener."""
        with self._lock:
            for listener in self._listeners:
                listener.on_event(event)

    def warn(self, message: str) -> None:
        """Emit a warning about something that does not stop the training."""
        self.emit(Warned(hide_secrets(message)))

    def mlflow_run_id(self, timeout_seconds: float) -> str | None:
        """Return MLflow's id of the run; None without MLflow or without an answer in time."""
        return self._sidecar.await_run_id(timeout_seconds) if self._sidecar else None

    def drain(self, timeout_seconds: float) -> None:
        """Wait until MLflow has all events; warn if it has not within `timeout_seconds`."""
        if self._sidecar and not self._sidecar.drain(timeout_seconds):
            minutes = plural(round(GIVE_UP_SECONDS / 60), "minute")
            self.warn(
                f"MLflow at {self._store} does not have all events yet; {METRICS} has them. The"
                f" rest is sent in the background for up to {minutes}, and later by"
                f" `python -m pipeline.tracking.ship {self._run_dir}` or launch/dashboard.py"
            )


@contextmanager
def open_tracker(config: Config, run_dir: Path, *, is_main: bool) -> Generator[Tracker]:
    """Open the listeners of the run in `run_dir`; only the main rank has any."""
    if not is_main:
        yield Tracker([])
        return
    with ExitStack() as stack:
        listeners: list[Listener] = [
            stack.enter_context(Jsonl(run_dir / METRICS)),
            stack.enter_context(Console()),
        ]
        sidecar, store = None, ""
        missing = _missing_mlflow() if config.tracking.mlflow else ""
        if config.tracking.mlflow and not missing:
            uri = default_uri(config.runs_dir, config.tracking.uri)
            store = public_uri(uri)
            sidecar = Sidecar.start(run_dir, uri=uri, experiment=config.tracking.experiment)
            listeners.append(stack.enter_context(sidecar))
        tracker = Tracker(listeners, sidecar=sidecar, store=store, run_dir=run_dir)
        if missing:
            tracker.warn(f"{missing}; {METRICS} has all events")
        yield tracker


def expect_usable_store(tracking: Tracking) -> None:
    """Raise `ValueError` if MLflow would refuse the run's store for good: that is no outage."""
    if tracking.mlflow:
        expect_usable(tracking.uri)


def _missing_mlflow() -> str:
    """Return what to install if MLflow is missing, else ""; training continues without it."""
    try:
        expect_installed("mlflow", needed_by="tracking.mlflow")
    except MissingExtra as error:
        return str(error)
    return ""
