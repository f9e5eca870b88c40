"""Uploads one run's events to MLflow in order, and records how far it got."""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.system.command import plural
from pipeline.tracking.mlflow_client import TrackingClient
from pipeline.tracking.spool import (
    Item,
    Param,
    Shipped,
    Tag,
    clean_text,
    group_of,
    items,
    milliseconds,
    next_events,
    run_key,
    unshipped_bytes,
)
from pipeline.tracking.store_uri import without_password

EVENTS_PER_REQUEST = 150
"""At 6 points per event below MLflow's limit of 1000 per request."""
QUARANTINE = "mlflow_quarantine.jsonl"
ARTIFACTS = ("result.json", "config.yaml")
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


@dataclass
class Uploader:
    """Uploads one run's events, in order, and records its state in the run folder."""

    run_dir: Path
    uri: str
    shipped: Shipped
    events_per_request: int = EVENTS_PER_REQUEST
    _connection: TrackingClient | None = None
    _faults: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def record_store(self) -> None:
        """Save which store the run belongs to: it may not answer before this process ends."""
        self._save(self.shipped)

    def upload_next(self) -> bool:
        """Upload the next events; return False if there are none.

        Raises what MLflow raises; nothing is lost then, and the call can be repeated.
        """
        if unshipped_bytes(self.run_dir, self.shipped.offset) < 0:  # the file was replaced
            self.shipped = self.shipped.restarted()
        events, end = next_events(self.run_dir, self.shipped.offset, self.events_per_request)
        if not events:
            return False
        self._faults.clear()
        try:
            self._find_run(events[0])
            state = self._ship(events)
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                self._save(self.shipped.restarted())  # the store was emptied: upload all again
            raise
        self._quarantine()
        self._save(replace(state, offset=end))
        return True

    def abandon(self) -> None:
        """Mark the run as killed in MLflow if its process ended without a RunEnded event."""
        state = self.shipped
        if state.run_id and not (state.ended or state.abandoned):
            end_ms = int(state.last_time * 1000)
            self._mlflow().client.set_terminated(state.run_id, "KILLED", end_ms)
            self._save(replace(state, abandoned=True))

    def revive(self) -> None:
        """Mark a run as running again in MLflow if it was marked as killed."""
        if self.shipped.abandoned:
            self._mlflow().resume(self.shipped.run_id)
            self._save(replace(self.shipped, abandoned=False))

    def _mlflow(self) -> TrackingClient:
        if self._connection is None:
            self._connection = TrackingClient(self.uri)
        return self._connection

    def _find_run(self, first: dict[str, Any]) -> None:
        state = self.shipped
        if state.run_id:
            return
        key = state.run_key or run_key(self.run_dir)
        experiment_id = self._mlflow().experiment(state.experiment)
        run_id = self._mlflow().run(experiment_id, key, milliseconds(first), self.run_dir.name)
        self._save(replace(state, run_key=key, experiment_id=experiment_id, run_id=run_id))

    def _ship(self, events: list[dict[str, Any]]) -> Shipped:
        state, parts = self.shipped, list[Item]()
        for event in events:
            try:
                parts += items(event, state)
                state = state.after(event)
            except (LookupError, ValueError, TypeError, OverflowError, AttributeError) as error:
                shown = clean_text(json.dumps(event, default=str))
                self._faults.append({"reason": clean_text(error), "event": shown})
        match events[0]["event"]:
            case "run_started":
                self._start(events[0], parts)
            case "run_ended":
                self._end(events[0], parts)
            case _:
                self._send(parts)
        return state

    def _start(self, event: dict[str, Any], parts: list[Item]) -> None:
        run_id = self.shipped.run_id
        known = self._mlflow().resume(run_id)
        self._send([_fitting(part, known) for part in parts])
        if group := group_of(event):
            self._join(group, milliseconds(event))
        with contextlib.suppress(Exception):  # not essential: must not delay the rest
            fingerprint, folder = event["tags"]["dataset_fingerprint"], event["params"]["data.dir"]
            self._mlflow().dataset(run_id, str(folder), str(fingerprint))

    def _join(self, group: str, start_ms: int) -> None:
        """Show the run below the parent run of its group."""
        lock = self.run_dir.parent / f".mlflow-{group}.lock"
        parent = self._mlflow().group(self.shipped.experiment_id, group, start_ms, lock)
        self._send([Tag("mlflow.parentRunId", parent)])

    def _end(self, event: dict[str, Any], parts: list[Item]) -> None:
        client, run_id = self._mlflow().client, self.shipped.run_id
        self._send(parts)
        status = STATUS.get(str(event.get("status")), "FAILED")
        client.set_terminated(run_id, status, milliseconds(event))
        for name in ARTIFACTS:
            if (self.run_dir / name).exists():
                try:  # earlier versions kept passwords in the configuration
                    text = without_password((self.run_dir / name).read_text())
                    client.log_text(run_id, text, name)
                except Exception as error:  # noqa: BLE001 - the file stays in the run folder
                    log(f"{name} was not copied to MLflow: {clean_text(error)}")

    def _send(self, parts: Sequence[Item]) -> None:
        """Send `parts`; find those that MLflow will never accept by halving, and set them aside."""
        if not parts:
            return
        try:
            self._mlflow().log(self.shipped.run_id, parts)
        except Exception as error:
            refused = isinstance(error, ValueError | TypeError)
            refused = refused or getattr(error, "error_code", "") in REFUSED
            # A deleted run, or a proxy that answers 400 to everything, must not make us drop parts.
            if not refused or not self._mlflow().is_active(self.shipped.run_id):
                raise
            if len(parts) == 1:
                shown = clean_text(repr(parts[0]))
                self._faults.append({"reason": clean_text(error), "item": shown})
                return
            half = len(parts) // 2
            self._send(parts[:half])
            self._send(parts[half:])

    def _quarantine(self) -> None:
        if not self._faults:
            return
        with (self.run_dir / QUARANTINE).open("a") as file:
            file.writelines(json.dumps(fault, default=str) + "\n" for fault in self._faults)
        reason = self._faults[0]["reason"][:200]
        count = plural(len(self._faults), "item")
        log(f"{count} cannot be shipped and were moved to {QUARANTINE}: {reason}")

    def _save(self, state: Shipped) -> None:
        self.shipped = state
        try:
            state.save(self.run_dir)
        except OSError as error:  # loses no data: uploading twice is harmless
            log(f"could not save the state: {error}")


def log(message: str) -> None:
    """Print to the log of this process, with the time."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, flush=True)


def _fitting(part: Item, known: dict[str, str]) -> Item:
    """Return a parameter that differs after a resume as a tag: MLflow's parameters are fixed."""
    if isinstance(part, Param) and known.get(part.key, part.value) != part.value:
        return Tag(f"resumed.{part.key}", part.value)
    return part
