"""The mount of a path is read from the kernel's list of mounts."""

from pathlib import Path

import pytest

from pipeline.system.mounts import find_mount, mount_of, shared

MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 27 0:40 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
32 31 0:41 / /home/me/scratch\\040disk rw - xfs /dev/nvme0n1 rw
33 27 0:42 / /lustre rw master:2 - lustre 10.0.0.1@tcp:/work rw,flock
34 27 0:43 / /remote rw - fuse.sshfs me@there: rw
35 27 0:44 / /vm rw - virtiofs share rw
36 27 0:45 / /data rw - ext4 /dev/vdb rw
37 27 0:46 / /data rw - beegfs beegfs_nodev rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "is_shared"),
    [
        ("/root/runs", "ext4", False),
        ("/home/me/runs", "nfs4", True),
        ("/home/me/scratch disk/runs", "xfs", False),
        ("/home/me/scratch", "nfs4", True),
        ("/homes/me", "ext4", False),
        ("/lustre", "lustre", True),
        ("/remote/x", "fuse.sshfs", True),
        ("/vm/x", "virtiofs", None),
        ("/data/x", "beegfs", True),
    ],
)
def test_the_innermost_and_last_mount_decides_what_a_path_lies_on(
    path: str, kind: str, is_shared: bool | None
) -> None:
    mount = find_mount(Path(path), MOUNTS)
    assert mount is not None
    assert (mount.kind, mount.is_shared) == (kind, is_shared)


def test_every_path_on_this_machine_has_a_mount(tmp_path: Path) -> None:
    mount = mount_of(tmp_path / "not" / "there")
    assert mount is not None
    assert mount == mount_of(tmp_path)
    assert mount.point in tmp_path.resolve().parents


def test_memory_that_is_mounted_is_not_shared_between_nodes() -> None:
    answer, where = shared(Path("/dev/shm/x"))
    assert answer is False
    assert where == "tmpfs, mounted at /dev/shm"
