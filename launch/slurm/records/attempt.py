"""One attempt: all ranks started together, and what each leaves behind.

Its files lie in RUN_DIR/attempts/TOKEN, where TOKEN is JOB.RESTART.STEP: the SLURM job, how often
it was requeued, and the how manieth start this is since.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.runs.fence import OWNER
from pipeline.system.durable import write_whole

ATTEMPTS = "attempts"
LOGS = "logs"
LATEST = "latest"
NODES = "nodes.json"


@dataclass(frozen=True, slots=True)
class LastWords:
    """How one rank ended."""

    rank: int
    host: str
    at: float
    """Seconds, as `time.time` gives them."""
    code: int
    error: str = ""
    """Type and message of what it failed with; empty if it did not."""
    notes: str = ""
    """Where it stood, such as "after step 120"."""
    traceback: str = ""

    @property
    def is_echo(self) -> bool:
        """Whether it failed because another rank was lost: nobody wants to read that first."""
        signs = ("Connection closed by peer", "Connection reset", "timed out", "Timed out", "NCCL")
        return any(sign in self.error for sign in signs)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where the files of one attempt lie."""

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
        """Make its folders, and take the run over: whatever older attempts still do is void."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / NODES, json.dumps(addresses, indent=2).encode() + b"\n")
        write_whole(self.run_dir / OWNER, self.token.encode())
        _point(self.run_dir / LOGS / LATEST, self.token)

    def addresses(self) -> dict[str, str]:
        """Return at which address the others reach each of its nodes."""
        return json.loads((self.folder / NODES).read_bytes())

    def leave(self, words: LastWords) -> None:
        """Write down how a rank ended."""
        path = self.folder / f"rank-{words.rank:05}.json"
        write_whole(path, json.dumps(asdict(words), indent=2).encode() + b"\n")

    def last_words(self) -> list[LastWords]:
        """Return what the ranks left that could, in the order of time."""
        paths = self.folder.glob("rank-*.json")
        words = [TypeAdapter(LastWords).validate_json(path.read_bytes()) for path in paths]
        return sorted(words, key=lambda each: each.at)

    def log(self, rank: int) -> Path:
        """Return where the output of a rank goes."""
        return self.logs / f"rank-{rank}.log"


def _point(link: Path, target: str) -> None:
    """Let the symbolic link `link` lead to `target`, with no moment in which it leads nowhere."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
