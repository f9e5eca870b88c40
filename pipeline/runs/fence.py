"""Lets only the newest attempt write to a run folder.

A node that lost its network may train for minutes after its job was started elsewhere. Therefore
the launcher of an attempt writes its token to RUN_DIR/owner and passes it to the ranks as
RUN_OWNER; a rank whose token was replaced stops writing. Without RUN_OWNER every attempt may write.
"""

import os
from dataclasses import dataclass
from pathlib import Path

OWNER = "owner"
TOKEN = "RUN_OWNER"  # noqa: S105 - the name of an environment variable


class FencedOut(RuntimeError):  # noqa: N818 - not a fault of this attempt
    """A newer attempt has taken over the run."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Checks whether a run still belongs to this attempt."""

    path: Path | None = None
    token: str = ""

    @classmethod
    def around(cls, run_dir: Path) -> "Fence":
        """Return the fence of this process's attempt at the run in `run_dir`."""
        token = os.environ.get(TOKEN, "")
        return cls(run_dir / OWNER if token else None, token)

    @property
    def is_active(self) -> bool:
        """Whether attempts have tokens at all."""
        return self.path is not None

    def expect_mine(self) -> None:
        """Raise `FencedOut` if a newer attempt has taken over the run.

        If the file cannot be read, as during a disk failure, this attempt counts as the owner.
        """
        if self.path is None:
            return
        try:
            owner = self.path.read_text().strip()
        except OSError:
            return
        if owner != self.token:
            raise FencedOut(f"attempt {owner} has taken over the run from attempt {self.token}")


OPEN = Fence()
"""No fence: every attempt may write."""
