"""The file system that a path lies on, and whether other machines see it, too."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
SHARED = {
    *("afs", "beegfs", "beegfs_nodev", "ceph", "cifs", "fhgfs", "gfs2", "glusterfs", "gpfs"),
    *("lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "wekafs"),
}
LOCAL = {
    *("aufs", "bcachefs", "btrfs", "devtmpfs", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "jfs"),
    *("overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs"),
    *("fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.squashfuse", "fuse.unionfs"),
}
OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system, and where it begins."""

    point: Path
    kind: str
    """As the kernel calls it: ext4, nfs4, lustre, fuse.sshfs."""

    @property
    def is_shared(self) -> bool | None:
        """Whether other machines may see it, judged by its kind; None if that does not tell."""
        if self.kind in LOCAL:
            return False
        return True if self.kind in SHARED or self.kind.startswith("fuse.") else None

    def __str__(self) -> str:
        return f"{self.kind}, mounted at {self.point}"


def shared(path: Path) -> tuple[bool | None, str]:
    """Return whether other machines may see `path`, which need not exist, and what it lies on.

    None is for a kind of file system that does not tell, or a system that does not say.
    """
    mount = mount_of(path)
    return (mount.is_shared, str(mount)) if mount else (None, "an unknown file system")


def mount_of(path: Path) -> Mount | None:
    """Return the file system of `path`; None if the system does not say."""
    try:
        text = MOUNTS.read_text()
    except OSError:
        return None
    return find_mount(path.resolve(), text)


def find_mount(path: Path, mountinfo: str) -> Mount | None:
    """Return, of the mounts that the kernel lists, the innermost around an absolute path."""
    around = [mount for mount in _read(mountinfo) if path.is_relative_to(mount.point)]
    around.reverse()  # of several at one place the last one covers the others
    return max(around, key=lambda mount: len(mount.point.parts), default=None)


def _read(mountinfo: str) -> Iterator[Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        yield Mount(Path(point), after.split(" ")[0])
