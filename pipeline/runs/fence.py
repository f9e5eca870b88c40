"""Who may write into a run's folder: the newest attempt, and none that a scheduler gave up on.

A node that is cut off may train on for minutes after its job was started elsewhere. So whoever
starts an attempt writes its token to RUN_DIR/owner and gives it to the ranks as RUN_OWNER; a rank
whose token is no longer there writes nothing any more. Without RUN_OWNER there is no fence.
"""

import os
from dataclasses import dataclass
from pathlib import Path

OWNER = "owner"
TOKEN = "RUN_OWNER"  # noqa: S105 - the name of an environment variable, and no secret


class FencedOut(RuntimeError):  # noqa: N818 - it is not the error of whoever meets it
    """A newer attempt has taken the run over."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Tells an attempt whether the run is still its own."""

    path: Path | None = None
    token: str = ""

    @classmethod
    def around(cls, run_dir: Path) -> "Fence":
        """Return the fence of the attempt that this process belongs to."""
        token = os.environ.get(TOKEN, "")
        return cls(run_dir / OWNER if token else None, token)

    @property
    def stands(self) -> bool:
        """Whether attempts are told apart at all."""
        return self.path is not None

    def expect_mine(self) -> None:
        """Raise `FencedOut` if a newer attempt has taken the run over.

        What cannot be read, because the disk fails for a moment, is taken for one's own.
        """
        if self.path is None:
            return
        try:
            owner = self.path.read_text().strip()
        except OSError:
            return
        if owner != self.token:
            raise FencedOut(f"attempt {owner} has taken the run over from attempt {self.token}")


OPEN = Fence()
"""No fence at all."""
