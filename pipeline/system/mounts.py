"""The file system of a path, and whether other machines can see it."""

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
    """A file system and its mount point."""

    point: Path
    kind: str
    """The kernel's name for it: ext4, nfs4, lustre, fuse.sshfs."""

    @property
    def is_shared(self) -> bool | None:
        """Whether other machines can see it, judged by its kind; None if unknown."""
        if self.kind in LOCAL:
            return False
        return True if self.kind in SHARED or self.kind.startswith("fuse.") else None

    def __str__(self) -> str:
        return f"{self.kind}, mounted at {self.point}"


def shared(path: Path) -> tuple[bool | None, str]:
    """Return whether other machines can see `path`, which need not exist, and its file system.

    None means unknown.
    """
    mount = mount_of(path)
    return (mount.is_shared, str(mount)) if mount else (None, "an unknown file system")


def mount_of(path: Path) -> Mount | None:
    """Return the file system of `path`, or None if the kernel does not report it."""
    try:
        text = MOUNTS.read_text()
    except OSError:
        return None
    return find_mount(path.resolve(), text)


def find_mount(path: Path, mountinfo: str) -> Mount | None:
    """Return the innermost of the kernel's mounts that contains an absolute path."""
    around = [mount for mount in _read(mountinfo) if path.is_relative_to(mount.point)]
    around.reverse()  # of several mounts at one point, the last one hides the others
    return max(around, key=lambda mount: len(mount.point.parts), default=None)


def _read(mountinfo: str) -> Iterator[Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        yield Mount(Path(point), after.split(" ")[0])
