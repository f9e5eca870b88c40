"""The process that ships a run's event file to MLflow, so that training never waits for it.

`python -m pipeline.tracking.ship RUN_DIR` follows the file and survives outages of any length. It
can be killed and restarted at any time: nothing is lost and nothing appears twice. Started by hand,
it ships what MLflow does not have yet.
"""

import argparse
import os
import re
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.system.output import lasting_output
from pipeline.system.secrets import HIDDEN
from pipeline.tracking.mlflow_client import locked
from pipeline.tracking.spool import Shipped, clean_text
from pipeline.tracking.store_uri import (
    VARIABLE,
    default_uri,
    expect_usable,
    public_uri,
    requested_uri,
)
from pipeline.tracking.uploader import EVENTS_PER_REQUEST, Uploader, log

POLL_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
LOCK = "mlflow.lock"


@dataclass
class Trainer:
    """Watches whether the trainer still runs.

    The trainer has the other end of this process's standard input; the system closes it when the
    trainer ends.
    """

    attended: bool
    _parent: int = field(default_factory=os.getppid)

    def is_running(self) -> bool:
        """Whether the trainer still runs."""
        if self.attended and (os.getppid() != self._parent or self._closed(0)):
            self.attended = False
        return self.attended

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the trainer ends."""
        if not self.attended:
            time.sleep(seconds)
        else:
            self._closed(seconds)

    @staticmethod
    def _closed(seconds: float) -> bool:
        return bool(select.select([0], [], [], seconds)[0])


def follow(uploader: Uploader, trainer: Trainer, give_up_seconds: float) -> bool:
    """Ship until the trainer has ended and everything is shipped; return whether it is.

    While the trainer runs, an outage may be of any length; afterwards at most `give_up_seconds`.
    """
    wait, last_good, failing = 1.0, time.monotonic(), False
    while True:
        running = trainer.is_running()
        try:
            if running:
                uploader.revive()
            more = uploader.upload_next()
            if not (running or more):
                uploader.abandon()
        except Exception as error:  # noqa: BLE001 - after any error the file still has the data
            if not failing:
                log(f"retrying after {type(error).__name__}: {clean_text(error)[:500]}")
            failing = True
            if not running and time.monotonic() - last_good >= give_up_seconds:
                return False
            uploader.events_per_request = max(1, uploader.events_per_request // 4)
            trainer.wait(wait)
            wait = min(LONGEST_WAIT_SECONDS, 2 * wait)
        else:
            if failing:
                log("MLflow answers again")
            failing, wait = False, 1.0
            uploader.events_per_request = min(EVENTS_PER_REQUEST, 2 * uploader.events_per_request)
            if not (running or more):
                return True
            if not more:
                trainer.wait(POLL_SECONDS)
        if running or not failing:
            last_good = time.monotonic()


def ship_run(run_dir: Path, options: argparse.Namespace, trainer: Trainer) -> bool:
    """Ship the run in `run_dir`, unless another process does; return whether MLflow has it all."""
    with locked(run_dir / LOCK, wait=trainer.attended) as held:
        if not held:
            log(f"{run_dir}: another process is shipping it")
            return True
        old = Shipped.load(run_dir)
        uri = _uri(run_dir, options, old)
        experiment = options.experiment or (old.experiment if old else "imagenet-pipeline")
        new = Shipped(public_uri(uri), experiment, options.run_key or "")
        same = old is not None and (old.uri, old.experiment) == (new.uri, new.experiment)
        uploader = Uploader(run_dir, uri, old if old and same else new)
        if old is None:
            uploader.record_store()
        done = follow(uploader, trainer, options.give_up_seconds)
    if not done:
        log(f"giving up; to ship the rest: python -m pipeline.tracking.ship {run_dir}")
    return done


def _uri(run_dir: Path, options: argparse.Namespace, old: Shipped | None) -> str:
    # A trainer sets the store in the environment; by hand, a run stays in its store.
    if options.uri or options.attended or old is None:
        return requested_uri(run_dir.parent, options.uri)
    default = default_uri(run_dir.parent)
    if old.uri == public_uri(default):
        return default
    if HIDDEN in old.uri:
        raise ValueError(
            f"{run_dir}: its store {old.uri} needs a password; put all of it into {VARIABLE}"
        )
    expect_usable(old.uri)
    return old.uri


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.ship", description=__doc__)
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument(
        "--uri", help="MLflow store (default: the last one, else $MLFLOW_TRACKING_URI)"
    )
    parser.add_argument("--experiment", help="MLflow experiment (default: the last one)")
    parser.add_argument("--run-key", help="tag that identifies the run (default: name@time)")
    parser.add_argument("--give-up-seconds", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--attended", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Ship the runs; return 0 if MLflow has them all, 3 if it did not answer, 2 for a mistake."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run_key and not re.fullmatch(r"[\w.@:/ -]+", options.run_key):
        parser.error(f"--run-key {options.run_key!r}: letters, digits and . _ @ : / - only")
    trainer = Trainer(options.attended)

    def on_signal(number: int, _frame: object) -> None:
        # Schedulers signal every process of a job; stay to ship the trainer's last event.
        if not trainer.is_running():
            raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, on_signal)
    if options.attended:
        os.nice(10)  # training has priority
    missing = [folder for folder in options.run_dirs if not folder.is_dir()]
    if missing:
        parser.error(f"{missing[0]} is not a folder")
    try:
        if options.uri:
            requested_uri(Path(), options.uri)  # refuses it before anything is written
        done = [ship_run(folder.resolve(), options, trainer) for folder in options.run_dirs]
    except ValueError as error:
        parser.error(str(error))
    return 0 if all(done) else 3


if __name__ == "__main__":
    with lasting_output():
        raise SystemExit(main())
