"""A run as it was queued: what was asked of SLURM, and with which code.

Its files lie in RUN_DIR/submissions/NUMBER. A run that is submitted again, on other nodes or with
other code, has several; the last one counts.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.config.schema import Slurm
from pipeline.system.durable import write_whole

SUBMISSIONS = "submissions"
RECORD = "submission.json"
CODE = "code"


@dataclass(frozen=True, slots=True)
class Layout:
    """How many processes run where."""

    nodes: int
    """Those that train."""
    spare_nodes: int
    ranks_per_node: int
    cpus_per_rank: int
    gpus_per_node: int

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission of a run."""

    run_dir: Path
    number: int
    layout: Layout
    slurm: Slurm
    environment: dict[str, str]
    """Variables of each rank: `env` in the configuration."""
    directory: Path
    """Where it was submitted from: relative paths in the configuration begin there."""
    python: str
    submitted_at: float
    """Seconds, as `time.time` gives them."""
    job_id: str = ""
    """Empty until SLURM has it."""
    shared: Path | None = None
    """A folder for the code and submitit's files of all points of a sweep; else it is `folder`."""

    @property
    def folder(self) -> Path:
        return self.run_dir / SUBMISSIONS / f"{self.number:03}"

    @property
    def home(self) -> Path:
        """Where the code and submitit's files lie."""
        return self.shared or self.folder

    @property
    def code(self) -> Path:
        return self.home / CODE

    def save(self) -> None:
        """Write it down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = TypeAdapter(Submission).dump_json(self, indent=2)
        write_whole(self.folder / RECORD, text + b"\n")


def last_submission(run_dir: Path) -> Submission | None:
    """Return the last submission of a run, or None if it was never queued."""
    found = sorted((run_dir / SUBMISSIONS).glob(f"*/{RECORD}"))
    return TypeAdapter(Submission).validate_json(found[-1].read_bytes()) if found else None


def next_number(run_dir: Path) -> int:
    """Return the number of the next submission of a run."""
    folders = (run_dir / SUBMISSIONS).glob("[0-9]*")
    return max((int(folder.name) for folder in folders), default=0) + 1
