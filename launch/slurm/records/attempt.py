"""One attempt: all ranks started together, and the files that each leaves behind.

Its files are in RUN_DIR/attempts/TOKEN. TOKEN is JOB.RESTART.NUMBER: the SLURM job, its restart
count, and the attempt number within that restart.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.runs.fence import OWNER
from pipeline.system.durable import replacing, write_whole
from pipeline.system.patience import patiently

ATTEMPTS = "attempts"
LOGS = "logs"
LATEST = "latest"
NODES = "nodes.json"


@dataclass(frozen=True, slots=True)
class RankExit:
    """How one rank ended."""

    rank: int
    host: str
    at: float
    """Unix time in seconds."""
    code: int
    error: str = ""
    """Type and message of its error; empty if it had none."""
    notes: str = ""
    """Where it happened, such as "after step 120"."""
    traceback: str = ""

    @property
    def is_secondary(self) -> bool:
        """Whether it failed only because another rank was lost, whose error matters more."""
        signs = ("Connection closed by peer", "Connection reset", "timed out", "Timed out", "NCCL")
        return any(sign in self.error for sign in signs)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The files of one attempt."""

    run_dir: Path
    token: str

    @property
    def folder(self) -> Path:
        return self.run_dir / ATTEMPTS / self.token

    @property
    def logs(self) -> Path:
        return self.run_dir / LOGS / self.token

    @property
    def rendezvous(self) -> Path:
        return self.folder / "rendezvous.json"

    def begin(self, addresses: dict[str, str]) -> None:
        """Make its folders and become the run's owner: older attempts can no longer write."""
        patiently(lambda: self._begin(addresses))

    def _begin(self, addresses: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / NODES, json.dumps(addresses, indent=2).encode() + b"\n")
        write_whole(self.run_dir / OWNER, self.token.encode())
        with replacing(self.run_dir / LOGS / LATEST) as link:
            link.unlink(missing_ok=True)
            link.symlink_to(self.token)

    def addresses(self) -> dict[str, str]:
        """Return the address of each of its nodes, as the others reach it."""
        return json.loads(patiently((self.folder / NODES).read_bytes))

    def record_ready(self, rank: int) -> None:
        """Record that a rank has loaded its program and now waits for the others."""
        with suppress(OSError):  # training may work on a full disk
            patiently((self.folder / f"rank-{rank:05}.ready").touch)

    def late_ranks(self, ranks: int) -> list[int]:
        """Return those of `ranks` for which others wait: they are not ready, and another one is."""
        ready = {int(path.stem[5:]) for path in self.folder.glob("rank-*.ready")}
        return sorted(set(range(ranks)) - ready) if ready else []

    def successor(self) -> str:
        """Return the attempt that has taken over the run from this one; empty if none has."""
        with suppress(OSError):
            owner = (self.run_dir / OWNER).read_text().strip()
            return owner if owner != self.token else ""
        return ""

    def record_exit(self, end: RankExit) -> None:
        """Record how a rank ended."""
        path = self.folder / f"rank-{end.rank:05}.json"
        content = json.dumps(asdict(end), indent=2).encode() + b"\n"
        patiently(lambda: write_whole(path, content))

    def rank_exits(self) -> list[RankExit]:
        """Return how the ranks ended, earliest first; a rank that was killed is missing."""
        paths = patiently(lambda: list(self.folder.glob("rank-*.json")))
        records = [patiently(path.read_bytes) for path in paths]
        exits = [TypeAdapter(RankExit).validate_json(record) for record in records]
        return sorted(exits, key=lambda each: each.at)

    def log(self, rank: int) -> Path:
        """Return the file with a rank's output."""
        return self.logs / f"rank-{rank}.log"


def next_attempt(run_dir: Path, start: str) -> int:
    """Return the number of a run's next attempt since `start`, JOB.RESTART."""
    numbers = (path.name.rpartition(".") for path in (run_dir / ATTEMPTS).glob(f"{start}.*"))
    return max((int(number) for _, _, number in numbers), default=-1) + 1
