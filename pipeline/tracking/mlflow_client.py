"""An MLflow store: where it is, and what can be asked of it. The only importer of MLflow here.

Importing this file does not import MLflow; opening an `Mlflow` does.
"""

import contextlib
import fcntl
import getpass
import importlib
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from pipeline.tracking.spool import Item, MetricPoint, Param, Tag
from pipeline.tracking.spool import without_password as without_password  # noqa: PLC0414

ARTIFACTS_DIR = "mlartifacts"
_SQLITE = "sqlite:///"


def default_uri(runs_dir: Path, configured: str | None = None) -> str:
    """The store to use: `configured`, else $MLFLOW_TRACKING_URI, else a file next to `runs_dir`.

    Files are named from the root, so that every process means the same one.
    """
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return f"{_SQLITE}{runs_dir.resolve().parent / 'mlflow.db'}"
    file = sqlite_file(uri)
    return f"{_SQLITE}{file.resolve()}" if file else uri


def sqlite_file(uri: str) -> Path | None:
    """The file of an sqlite store; None for any other."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(_SQLITE) and path else None


def client_environment(uri: str) -> dict[str, str]:
    """Settings of the MLflow client: fail at once, since waiting and trying again is our affair."""
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if database := sqlite_file(uri):  # otherwise artifacts land in the current folder
        settings["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(database.parent / ARTIFACTS_DIR)
    return settings


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Generator[bool]:
    """Hold the lock file at `path`; yield whether it is held (without `wait` it may be another's).

    The system frees it when the process dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Mlflow:
    """A connection; each method is a request that may be repeated, and raises what MLflow does."""

    def __init__(self, uri: str) -> None:
        """Connect; of several that come to a new sqlite file, one makes its tables."""
        os.environ.update(client_environment(uri))
        self._make: Any = importlib.import_module("mlflow.entities")
        tracking: Any = importlib.import_module("mlflow.tracking")
        database = sqlite_file(uri)
        lock = locked(database.with_name(f"{database.name}.lock")) if database else None
        with lock or contextlib.nullcontext():
            self.client: Any = tracking.MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """The id of the experiment called `name`, made if need be."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            with contextlib.suppress(Exception):  # another run may make it at this moment
                return str(self.client.create_experiment(name))
            found = self.client.get_experiment_by_name(name)
        if found is None:
            raise ConnectionError(f"experiment {name!r} could not be made")
        if found.lifecycle_stage != "active":
            raise ConnectionError(
                f"experiment {name!r} was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or set tracking.experiment to another"
            )
        return str(found.experiment_id)

    def run(self, experiment_id: str, key: str, began_ms: int, name: str) -> str:
        """The id of the run with the tag run_key=`key`, made if need be."""
        if found := self._find(experiment_id, key):
            return found
        tags = {"run_key": key, "mlflow.user": _user()}
        made = self.client.create_run(experiment_id, start_time=began_ms, tags=tags, run_name=name)
        return str(made.info.run_id)

    def group(self, experiment_id: str, name: str, began_ms: int, lock: Path) -> str:
        """The id of the run that stands for the group `name`, made if need be, by one at a time.

        Raises ConnectionError while another process, which holds the file `lock`, makes it.
        """
        if found := self._find(experiment_id, name):
            return found
        with locked(lock, wait=False) as held:
            if not held:
                raise ConnectionError(f"the run of the group {name} is being made")
            run_id = self.run(experiment_id, name, began_ms, name)
            self.client.set_terminated(run_id, "FINISHED", began_ms)  # nobody trains in it
        return run_id

    def log(self, run_id: str, parts: Sequence[Item]) -> None:
        """Send points, parameters and tags in one request; a point sent again stays one point."""
        make = self._make
        self.client.log_batch(
            run_id,
            metrics=[
                make.Metric(p.key, p.value, p.timestamp_ms, p.step)
                for p in parts
                if isinstance(p, MetricPoint)
            ],
            params=[make.Param(p.key, p.value) for p in parts if isinstance(p, Param)],
            tags=[make.RunTag(p.key, p.value) for p in parts if isinstance(p, Tag)],
        )

    def resume(self, run_id: str) -> dict[str, str]:
        """Show the run as running; return the parameters that it has."""
        run = self.client.get_run(run_id)
        if run.info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        return dict(run.data.params)

    def _find(self, experiment_id: str, key: str) -> str | None:
        """The id of the run with the tag run_key=`key`; of several, all choose the same."""
        oldest = ["attributes.start_time ASC"]
        query = f"tags.run_key = '{key}'"
        found = self.client.search_runs([experiment_id], query, max_results=1, order_by=oldest)
        return str(found[0].info.run_id) if found else None

    def is_active(self, run_id: str) -> bool:
        """Whether the run is there and not deleted."""
        return str(self.client.get_run(run_id).info.lifecycle_stage) == "active"

    def dataset(self, run_id: str, folder: str, fingerprint: str) -> None:
        """Name the dataset that the run trains on."""
        make, source = self._make, json.dumps({"uri": folder})
        data = make.Dataset(Path(folder).name, fingerprint[:36], "local", source)
        context = make.InputTag("mlflow.data.context", "training")
        self.client.log_inputs(run_id, [make.DatasetInput(data, [context])])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # containers run under numbers that have no name
        return str(os.getuid())
