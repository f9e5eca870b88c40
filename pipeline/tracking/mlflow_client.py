"""All requests that this project sends to an MLflow store. The only module that imports MLflow.

Importing this file does not import MLflow; creating a `TrackingClient` does.
"""

import contextlib
import getpass
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from pipeline.system.locks import lock_file
from pipeline.tracking.spool import Item, MetricPoint, Param, Tag
from pipeline.tracking.store_uri import ARTIFACTS_DIR, is_server, split_credentials, sqlite_file


def client_environment(uri: str) -> dict[str, str]:
    """Return settings of MLflow's client; it must not wait or retry, because its caller does."""
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if database := sqlite_file(uri):  # otherwise artifacts go to the working directory
        settings["_MLFLOW_SERVER_ARTIFACT_ROOT"] = str(database.parent / ARTIFACTS_DIR)
    if is_server(uri):  # messages of MLflow contain the URI that it was given
        _, user, password = split_credentials(uri)
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        settings |= dict(zip(names, (user, password), strict=True)) if password else {}
    return settings


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Generator[bool]:
    """Lock the file `path` for the block; yield whether this process has the lock.

    Without `wait` it yields False if another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        yield lock_file(file, wait=wait)


class TrackingClient:
    """A client of an MLflow store; all methods can be repeated, and raise what MLflow raises."""

    def __init__(self, uri: str) -> None:
        """Connect; if several processes open a new sqlite file, one creates its tables."""
        os.environ.update(client_environment(uri))
        from mlflow import entities, tracking

        self._make: Any = entities
        database = sqlite_file(uri)
        lock = locked(database.with_name(f"{database.name}.lock")) if database else None
        with lock or contextlib.nullcontext():
            address = split_credentials(uri)[0] if is_server(uri) else uri
            self.client: Any = tracking.MlflowClient(tracking_uri=address)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment `name`; create it if it does not exist."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            with contextlib.suppress(Exception):  # another run may be creating it
                return str(self.client.create_experiment(name))
            found = self.client.get_experiment_by_name(name)
        if found is None:
            raise ConnectionError(f"experiment {name!r} could not be created")
        if found.lifecycle_stage != "active":
            raise ConnectionError(
                f"experiment {name!r} was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or set tracking.experiment to another"
            )
        return str(found.experiment_id)

    def run(self, experiment_id: str, key: str, start_ms: int, name: str) -> str:
        """Return the id of the run with the tag run_key=`key`; create it if it does not exist."""
        if found := self._find(experiment_id, key):
            return found
        tags = {"run_key": key, "mlflow.user": _user()}
        made = self.client.create_run(experiment_id, start_time=start_ms, tags=tags, run_name=name)
        return str(made.info.run_id)

    def group(self, experiment_id: str, name: str, start_ms: int, lock: Path) -> str:
        """Return the id of the parent run of the group `name`; create it if it does not exist.

        Raises ConnectionError while another process, which holds the file `lock`, creates it.
        """
        if found := self._find(experiment_id, name):
            return found
        with locked(lock, wait=False) as held:
            if not held:
                raise ConnectionError(f"the parent run of the group {name} is being created")
            run_id = self.run(experiment_id, name, start_ms, name)
            self.client.set_terminated(run_id, "FINISHED", start_ms)  # it only groups others
        return run_id

    def log(self, run_id: str, parts: Sequence[Item]) -> None:
        """Send points, parameters and tags in one request; a repeated point is stored once."""
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
        """Mark the run as running; return its parameters."""
        run = self.client.get_run(run_id)
        if run.info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        return dict(run.data.params)

    def _find(self, experiment_id: str, key: str) -> str | None:
        """Return the id of the oldest run with the tag run_key=`key`."""
        oldest = ["attributes.start_time ASC"]
        query = f"tags.run_key = '{key}'"
        found = self.client.search_runs([experiment_id], query, max_results=1, order_by=oldest)
        return str(found[0].info.run_id) if found else None

    def is_active(self, run_id: str) -> bool:
        """Whether the run exists and is not deleted."""
        return str(self.client.get_run(run_id).info.lifecycle_stage) == "active"

    def dataset(self, run_id: str, folder: str, fingerprint: str) -> None:
        """Log the dataset of the run."""
        make, source = self._make, json.dumps({"uri": folder})
        data = make.Dataset(Path(folder).name, fingerprint[:36], "local", source)
        context = make.InputTag("mlflow.data.context", "training")
        self.client.log_inputs(run_id, [make.DatasetInput(data, [context])])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # containers may run under user ids without a name
        return str(os.getuid())
