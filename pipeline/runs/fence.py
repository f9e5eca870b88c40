"""Lets only the newest attempt write to a run folder.

A node that lost its network may train for minutes after its job was started elsewhere. Therefore
the launcher of an attempt writes its token to RUN_DIR/owner and passes it to the ranks as
RUN_OWNER; a rank whose token was replaced stops writing. A process that was started by hand has no
token, and stops writing once an attempt begins after it: its run may also wait in a queue.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.system.patience import patiently

OWNER = "owner"
TOKEN = "RUN_OWNER"  # noqa: S105 - the name of an environment variable


class FencedOut(RuntimeError):  # noqa: N818 - not a fault of this attempt
    """A newer attempt has taken over the run."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Checks whether a run still belongs to this attempt."""

    path: Path | None = None
    token: str = ""
    """The name of this attempt; without one, the owner when this process started."""
    is_active: bool = True
    """Whether this attempt has a token."""

    @classmethod
    def around(cls, run_dir: Path) -> "Fence":
        """Return the fence of this process's attempt at the run in `run_dir`."""
        token, path = os.environ.get(TOKEN, ""), run_dir / OWNER
        return cls(path, token or _first_owner(path), is_active=bool(token))

    def expect_mine(self) -> None:
        """Raise `FencedOut` if a newer attempt has taken over the run.

        If the file cannot be read, as during a disk failure, this attempt counts as the owner.
        """
        if self.path is None:
            return
        owner = _owner(self.path)
        if owner not in (None, self.token):
            mine = f"attempt {self.token}" if self.is_active else "this process"
            raise FencedOut(f"attempt {owner} has taken over the run from {mine}")


OPEN = Fence()
"""No fence: every attempt may write."""


def _first_owner(path: Path) -> str:
    """Return the token in the file `path`; empty if there is none.

    It waits for a disk that fails: an old token that is found later would look like a new attempt.
    """
    with suppress(OSError):
        return patiently(path.read_text).strip()
    return ""


def _owner(path: Path) -> str | None:
    """Return the token in the file `path`; None if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
