"""Blows that fall on a training: its ranks are killed, frozen and stopped at random."""

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
from tests.multiprocess.noted import Noting

END_SECONDS = 60.0
"""Nobody outlives a blow for longer."""
PROPER_CODES = {0, 1, STOPPED, -SIGKILL}


@dataclass(frozen=True)
class Setting:
    """What an attempt runs on."""

    engine: str
    ranks: int


def _settings(*ranks: int) -> list[Setting]:
    zero = [f"{{name: deepspeed, zero_stage: {stage}}}" for stage in (0, 1, 2)]
    return [Setting(engine, count) for count in ranks for engine in ("{name: ddp}", *zero)]


BITWISE = _settings(2)
"""All of these come to the same bits, whatever their order."""
ANY = _settings(1, 2, 3)


@dataclass
class Chaos:
    """What happened in one training."""

    settings: list[Setting] = field(default_factory=list[Setting])
    blows: Counter[str] = field(default_factory=Counter[str])
    struck: list[float] = field(default_factory=list[float])
    """When each attempt got the blow that ended it."""
    end_seconds: list[float] = field(default_factory=list[float])
    """From such a blow to the end of the last rank."""
    damaged: list[str] = field(default_factory=list[str])


def suffer(
    command: list[object], run: Path, notes: Path, *, choices: list[Setting], dice: random.Random
) -> Chaos:
    """Train in `run` from the first step to the last under random blows."""
    chaos = Chaos()
    while not (run / "result.json").exists():
        setting = dice.choice(choices)
        ranks = _start(command, run, setting, partial(Noting, notes, len(chaos.settings)))
        chaos.settings.append(setting)
        _strike(ranks, notes, chaos, dice)
        codes = ranks.wait(END_SECONDS)
        chaos.end_seconds.append(time.time() - chaos.struck[-1])
        assert set(codes) <= PROPER_CODES, (codes, run)
        chaos.damaged += _damaged(run)
    return chaos


def _start(
    command: list[object], run: Path, setting: Setting, noting: Callable[[int], Noting]
) -> Ranks:
    """Start an attempt in which each rank takes its steps by what `noting` makes for it."""
    arguments = [*map(str, command), f"run_dir={run}", f"engine={setting.engine}"]

    def begin(rank: int) -> int:
        loop.train_step = noting(rank)
        return train.main(arguments)

    with run.with_suffix(".txt").open("ab") as output:
        return Ranks(fork_ranks(begin, setting.ranks, output.fileno()))


def _strike(ranks: Ranks, notes: Path, chaos: Chaos, dice: random.Random) -> None:
    """Let blows fall until one has ended the attempt, or it is done."""
    attempt = len(chaos.settings) - 1
    early = dice.random() < 0.15  # before the first step

    def trains() -> bool:
        return any(path.stat().st_size for path in notes.glob(f"{attempt:03}-*.jsonl"))

    while not (early or ranks.poll() or trains()):
        time.sleep(0.005)
    while not ranks.poll():
        time.sleep(dice.uniform(0, 1.5))
        victim = [dice.choice(ranks.pids)]
        match dice.choice(["kill one", "kill one", "kill all", "stop one", "stop all", "freeze"]):
            case "freeze":
                chaos.blows["SIGSTOP of a rank, for up to 2 s"] += 1
                ranks.send(SIGSTOP, victim)
                time.sleep(dice.uniform(0.1, 2))
                ranks.send(SIGCONT, victim)
                continue
            case "kill one":
                blow, number, pids = "SIGKILL of a rank", SIGKILL, victim
            case "kill all":
                blow, number, pids = "SIGKILL of all ranks", SIGKILL, ranks.pids
            case "stop one":
                blow, number, pids = "SIGTERM to a rank", SIGTERM, victim
            case _:
                blow, number, pids = "SIGUSR2 to all ranks", SIGUSR2, ranks.pids
        if not ranks.poll():
            chaos.blows[blow] += 1
            ranks.send(number, pids)
        break
    chaos.struck.append(time.time())
    if not trains():  # ranks that wait for one another at the start are left to the launcher
        ranks.send(SIGKILL, ranks.pids)


def _damaged(run: Path) -> list[str]:
    found: list[str] = []
    for path in list_checkpoints(run / "checkpoints"):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            found.append(str(error))
    return found


def relay(
    command: list[object], run: Path, notes: Path, *, legs: list[tuple[Setting, int]]
) -> None:
    """Train in `run` without a blow: on each setting up to the step that goes with it."""
    for attempt, (setting, last_step) in enumerate(legs):
        noting = partial(Noting, notes, attempt, last_step=last_step)
        codes = _start(command, run, setting, noting).wait(600)
        assert set(codes) <= {0, STOPPED}, (setting, last_step, codes, run)
