"""Files are compared with the index, and only a limited number stays open."""

import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.index import Index
from pipeline.storage.files import MOST_IMAGES, MOST_IMAGES_OF_A_FILE, file_faults, samples_in
from pipeline.storage.open_files import OpenFiles, grant_open_files
from pipeline.storage.reader import SampleReader
from tests.support.archives import make_archives, spoil
from tests.support.images import make_dataset


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 10**18))


def replace(path: Path) -> None:
    """Write other content of the same size, later."""
    path.write_bytes(b"x" * path.stat().st_size)
    touch(path)


@pytest.fixture
def files(tmp_path: Path) -> Index:
    return Index.open(make_dataset(tmp_path, train=9, val=1), "train")


@pytest.fixture
def archives(tmp_path: Path) -> Index:
    return Index.open(make_archives(tmp_path, images=300, shards=3), "train")


# -------------------------------------------------------------------------------------- faults


def test_unchanged_files_have_no_faults(files: Index) -> None:
    assert file_faults(files) == []


def test_missing_truncated_and_longer_files_are_reported(files: Index) -> None:
    missing, truncated, longer = (files.path(sample) for sample in (1, 4, 6))
    size = truncated.stat().st_size
    missing.unlink()
    os.truncate(truncated, 99)
    with longer.open("ab") as stream:
        stream.write(b"more")
    faults = {line.partition(": ")[0]: line.partition(": ")[2] for line in file_faults(files)}
    assert list(faults) == sorted(map(str, (missing, truncated, longer)))
    assert faults[str(missing)] == "No such file or directory"
    assert f"has 99 bytes, but had {size:,} when it was indexed" in faults[str(truncated)]
    assert f"has {size_of(files, 6) + 4:,} bytes, but" in faults[str(longer)]


def size_of(index: Index, sample: int) -> int:
    return int(index.sizes[sample])


def test_a_copied_file_is_not_a_fault(files: Index, archives: Index) -> None:
    for index in (files, archives):
        for name in index.files.to_pylist():
            touch(index.root / name)
        assert file_faults(index) == []


def test_replaced_files_are_detected_by_their_content(files: Index, archives: Index) -> None:
    for index in (files, archives):
        for sample in (0, len(index) - 1):
            replace(index.path(sample))
        wanted = sorted({str(index.path(0)), str(index.path(len(index) - 1))})
        faults = file_faults(index)
        assert [fault.partition(": ")[0] for fault in faults] == wanted
        assert all("its content does not match the index" in fault for fault in faults)


def test_an_archive_that_was_packed_again_is_detected(archives: Index) -> None:
    """The same size and images, at other offsets."""
    path = archives.path(0)
    content = path.read_bytes()
    path.write_bytes(content[1:] + content[:1])
    touch(path)
    (fault,) = file_faults(archives)
    assert fault.startswith(f"{path}: its content does not match the index")


def test_the_number_of_images_read_is_limited_per_file_and_in_all(
    tmp_path: Path, archives: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Index.open(make_dataset(tmp_path / "many", train=400, val=1), "train")
    reads: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, at: int) -> bytes:
        reads.append(at)
        return pread(descriptor, size, at)

    monkeypatch.setattr(os, "pread", counted)
    for name in many.files.to_pylist():
        touch(many.root / name)
    assert file_faults(many) == []
    assert len(reads) == MOST_IMAGES
    reads.clear()
    touch(archives.path(0))
    assert file_faults(archives) == []
    first = samples_in(archives, int(archives.file_ids[0]))
    assert len(set(reads)) == MOST_IMAGES_OF_A_FILE
    assert {min(reads), max(reads)} == {int(archives.offsets[first[at]]) for at in (0, -1)}


def test_samples_in_a_file_are_sorted_by_offset(archives: Index) -> None:
    for file in range(len(archives.files)):
        samples = samples_in(archives, file)
        assert sorted(samples) == np.flatnonzero(archives.file_ids == file).tolist()
        assert (np.diff(archives.offsets[samples]) > 0).all()


# ------------------------------------------------------------------------------------- contents


@pytest.mark.parametrize("at", [0, 1, -1])
def test_one_changed_bit_is_detected(archives: Index, at: int) -> None:
    sample = 17
    offset, size = int(archives.offsets[sample]), int(archives.sizes[sample])
    everything = np.arange(len(archives))
    with SampleReader(archives, 4) as reader:
        assert not [c for c in reader.read(everything) if isinstance(c, OSError)]
        spoil(archives.path(sample), offset + at % size)
        contents = reader.read(everything)
    wrong = [number for number, content in enumerate(contents) if isinstance(content, OSError)]
    assert wrong == [sample]
    assert "do not match the index" in str(contents[sample])


def test_bytes_between_images_do_not_matter(archives: Index) -> None:
    sample = int(samples_in(archives, 0)[3])
    spoil(archives.path(sample), int(archives.offsets[sample] + archives.sizes[sample]))
    with SampleReader(archives, 1) as reader:
        assert not [c for c in reader.read(np.arange(300)) if isinstance(c, OSError)]


# ---------------------------------------------------------------------------------- descriptors


def open_below(folder: Path) -> int:
    """How many files below `folder` this process has open."""
    links = (each for each in Path("/proc/self/fd").iterdir() if each.is_symlink())
    return sum(os.path.realpath(link).startswith(f"{folder}/") for link in links)


def test_archives_stay_open_and_single_files_do_not(files: Index, archives: Index) -> None:
    for index, kept in ((files, 0), (archives, 3)):
        with SampleReader(index, 2) as reader:
            reader.read(np.arange(len(index)))
            assert open_below(index.root) == kept
        assert open_below(index.root) == 0


@pytest.mark.parametrize("limit", [0, 1, 3, 50])
def test_threads_share_descriptors_within_the_limit(tmp_path: Path, limit: int) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 10)
    opened = OpenFiles(lambda file: tmp_path / str(file), limit)
    together = threading.Barrier(8)

    def read(seed: int) -> int:
        together.wait()
        order = np.random.default_rng(seed).integers(0, 20, 500).tolist()
        wrong = 0
        for file in order:
            with opened.lend(file) as descriptor:
                wrong += os.pread(descriptor, 10, 0) != bytes([file]) * 10
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(read, range(8))) == 0
    assert open_below(tmp_path) == min(limit, 20)
    opened.close()
    assert open_below(tmp_path) == 0


def test_the_most_recently_used_file_stays_open(tmp_path: Path) -> None:
    for name in "012":
        (tmp_path / name).touch()
    opened = OpenFiles(lambda file: tmp_path / str(file), 2)
    numbers: dict[int, int] = {}
    for file in (0, 1, 0, 2):
        with opened.lend(file) as numbers[file]:
            pass
    with opened.lend(0) as again:
        assert again == numbers[0]
    (tmp_path / "1").unlink()
    with pytest.raises(FileNotFoundError), opened.lend(1):
        pass
    opened.close()


SHARDS = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.dataset.index import Index
from pipeline.storage.reader import SampleReader
index = Index.open(Path(sys.argv[1]), "train")
for hard in (2000, 300):
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    with SampleReader(index, 4) as first, SampleReader(index, 4) as second:
        for _ in range(2):
            for reader in (first, second):
                for content in reader.read(np.arange(len(index))):
                    assert not isinstance(content, OSError), content
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.process
def test_more_shards_than_the_process_may_open(tmp_path: Path) -> None:
    folder = make_archives(tmp_path, images=800, shards=400)
    command = [sys.executable, "-c", SHARDS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [int(limit) for limit in done.stdout.split()] == [2 * 400 + 512, 300]


def test_the_limit_is_raised_no_further_than_needed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert grant_open_files(1) == 1
    assert grant_open_files(0) == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] in (before[0], 2 * 1 + 512)
