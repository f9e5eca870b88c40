"""Random faults during a training: its ranks are killed, frozen and asked to stop."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR2

from pipeline import loop, train
from pipeline.checkpoint import CheckpointError
from pipeline.checkpoint.reading import list_checkpoints, verify_checkpoint
from pipeline.system.exit_codes import STOPPED
from tests.multiprocess.forked import Ranks, fork_ranks
from tests.multiprocess.recorded import Recorder

END_SECONDS = 60.0
"""Every rank ends within this time after a fault."""
EXPECTED_CODES = {0, 1, STOPPED, -SIGKILL}


@dataclass(frozen=True)
class Setting:
    """The engine and the number of ranks of an attempt."""

    engine: str
    ranks: int


def _settings(*ranks: int) -> list[Setting]:
    zero = [f"{{name: deepspeed, zero_stage: {stage}}}" for stage in (0, 1, 2)]
    return [Setting(engine, count) for count in ranks for engine in ("{name: ddp}", *zero)]


BITWISE = _settings(2)
"""All of these give the same bits, in any order."""
ANY = _settings(1, 2, 3)


@dataclass
class Chaos:
    """What happened in one training."""

    settings: list[Setting] = field(default_factory=list[Setting])
    faults: Counter[str] = field(default_factory=Counter[str])
    fault_times: list[float] = field(default_factory=list[float])
    """When the fault occurred that ended each attempt."""
    end_seconds: list[float] = field(default_factory=list[float])
    """From that fault to the end of the last rank."""
    damaged: list[str] = field(default_factory=list[str])


def train_with_faults(
    command: list[object],
    run: Path,
    records: Path,
    *,
    choices: list[Setting],
    generator: random.Random,
) -> Chaos:
    """Train in `run` from the first step to the last, with random faults."""
    chaos = Chaos()
    while not (run / "result.json").exists():
        setting = generator.choice(choices)
        ranks = _start(command, run, setting, partial(Recorder, records, len(chaos.settings)))
        chaos.settings.append(setting)
        _inject(ranks, records, chaos, generator)
        codes = ranks.wait(END_SECONDS)
        chaos.end_seconds.append(time.time() - chaos.fault_times[-1])
        assert set(codes) <= EXPECTED_CODES, (codes, run)
        chaos.damaged += _damaged(run)
    return chaos


def _start(
    command: list[object], run: Path, setting: Setting, recorder: Callable[[int], Recorder]
) -> Ranks:
    """Start an attempt in which `recorder(rank)` takes the steps of each rank."""
    arguments = [*map(str, command), f"run_dir={run}", f"engine={setting.engine}"]

    def begin(rank: int) -> int:
        loop.train_step = recorder(rank)
        return train.main(arguments)

    with run.with_suffix(".txt").open("ab") as output:
        return Ranks(fork_ranks(begin, setting.ranks, output.fileno()))


def _inject(ranks: Ranks, records: Path, chaos: Chaos, generator: random.Random) -> None:
    """Inject faults until one of them ends the attempt, or it finishes."""
    attempt = len(chaos.settings) - 1
    early = generator.random() < 0.15  # before the first step

    def trains() -> bool:
        return any(path.stat().st_size for path in records.glob(f"{attempt:03}-*.jsonl"))

    while not (early or ranks.poll() or trains()):
        time.sleep(0.005)
    while not ranks.poll():
        time.sleep(generator.uniform(0, 1.5))
        victim = [generator.choice(ranks.pids)]
        kinds = ["kill one", "kill one", "kill all", "stop one", "stop all", "freeze"]
        match generator.choice(kinds):
            case "freeze":
                chaos.faults["SIGSTOP of a rank, for up to 2 s"] += 1
                ranks.send(SIGSTOP, victim)
                time.sleep(generator.uniform(0.1, 2))
                ranks.send(SIGCONT, victim)
                continue
            case "kill one":
                fault, number, pids = "SIGKILL of a rank", SIGKILL, victim
            case "kill all":
                fault, number, pids = "SIGKILL of all ranks", SIGKILL, ranks.pids
            case "stop one":
                fault, number, pids = "SIGTERM to a rank", SIGTERM, victim
            case _:
                fault, number, pids = "SIGUSR2 to all ranks", SIGUSR2, ranks.pids
        if not ranks.poll():
            chaos.faults[fault] += 1
            ranks.send(number, pids)
        break
    chaos.fault_times.append(time.time())
    if not trains():  # a launcher would end ranks that wait for each other at the start
        ranks.send(SIGKILL, ranks.pids)


def _damaged(run: Path) -> list[str]:
    found: list[str] = []
    for path in list_checkpoints(run / "checkpoints"):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            found.append(str(error))
    return found


def train_in_legs(
    command: list[object], run: Path, records: Path, *, legs: list[tuple[Setting, int]]
) -> None:
    """Train in `run` without faults: with each setting up to the step that belongs to it."""
    for attempt, (setting, last_step) in enumerate(legs):
        recorder = partial(Recorder, records, attempt, last_step=last_step)
        codes = _start(command, run, setting, recorder).wait(600)
        assert set(codes) <= {0, STOPPED}, (setting, last_step, codes, run)
