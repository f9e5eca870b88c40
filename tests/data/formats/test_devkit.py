"""The development kit: labels are those of torchvision, and damage is reported."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import ImageNet
from torchvision.datasets import imagenet as reference

from data.formats import devkit
from data.formats.devkit import GROUND_TRUTH, KIT, META, Devkit, read_devkit
from tests.support import official
from tests.support.images import encode
from tests.support.official import encode_meta, make_synsets, md5, pack_devkit, write_devkit

WORDS = {
    "n02012849": "crane",
    "n01440764": "tench, Tinca tinca",
    "n03126707": "crane",
    "n02119789": "kit fox, Vulpes macrotis",
    "n07875152": "potpie",
    "n01443537": "goldfish, Carassius auratus",
}
VALIDATION = ["n03126707", "n01440764", "n07875152", "n02119789", "n02012849", "n01443537"] * 2
SYNSETS = make_synsets(WORDS)
TRUTH = b"5\n1\n6\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / f"{KIT}.tar.gz"
    words = list(WORDS.values())
    return write_devkit(path, wnids=list(WORDS), words=words, validation_wnids=VALIDATION)


@pytest.fixture
def any_kit_is_official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kit is accepted as the published one, and read in this process."""
    monkeypatch.setattr(devkit, "_is_official", lambda _: True)


in_process = pytest.mark.usefixtures("any_kit_is_official")


def unpacked(archive: Path) -> Path:
    with tarfile.open(archive) as tar:
        for name in (META, GROUND_TRUTH):
            content = tar.extractfile(f"{KIT}/{name}")
            assert content is not None
            path = archive.parent / KIT / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
    return archive.parent / KIT


@in_process
def test_a_label_is_the_place_among_the_sorted_wnids(archive: Path) -> None:
    kit = read_devkit(archive)
    assert kit.wnids == tuple(sorted(WORDS))
    assert kit.class_names == tuple(WORDS[wnid] for wnid in sorted(WORDS))
    assert kit.validation_labels == tuple(sorted(WORDS).index(wnid) for wnid in VALIDATION)


@in_process
def test_the_id_minus_one_is_another_class(archive: Path) -> None:
    """The classic mistake: all of its labels are in range, and most are wrong."""
    kit = read_devkit(archive)
    ids = [int(line) for line in (unpacked(archive) / GROUND_TRUTH).read_text().splitlines()]
    mistaken = [kit.wnids[kit_id - 1] for kit_id in ids]
    assert set(mistaken) == set(WORDS)
    wrong = [one != other for one, other in zip(mistaken, VALIDATION, strict=True)]
    assert sum(wrong) > len(wrong) / 2
    assert [kit.wnids[label] for label in kit.validation_labels] == VALIDATION


def test_torchvision_gives_every_image_the_same_label_by_the_same_md5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    wnids = [f"n{number:08d}" for number in random.permutation(99_999)[:300]]
    words = [f"word {wnid}, other, more" for wnid in wnids]
    shown = [wnids[place] for place in random.permutation([*range(300), *range(0, 300, 3)])]
    made = {
        "devkit": write_devkit(
            tmp_path / f"{KIT}.tar.gz", wnids=wnids, words=words, validation_wnids=shown
        ),
        "val": official.write_val_archive(
            tmp_path / "ILSVRC2012_img_val.tar",
            [encode(np.full((1, 1, 3), number % 256, np.uint8)) for number in range(len(shown))],
        ),
    }
    assert reference.ARCHIVE_META["devkit"] == (f"{KIT}.tar.gz", devkit.MD5)
    for name, path in made.items():
        monkeypatch.setitem(reference.ARCHIVE_META, name, (path.name, md5(path)))
    monkeypatch.setattr(devkit, "MD5", md5(made["devkit"]))
    kit = read_devkit(made["devkit"])

    theirs = ImageNet(tmp_path, split="val")
    labels = {Path(path).name: label for path, label in theirs.samples}
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(shown) + 1)]
    assert kit.validation_labels == tuple(labels[name] for name in names)
    assert list(kit.wnids) == theirs.wnids
    assert [tuple(name.split(", ")) for name in kit.class_names] == theirs.classes
    _, validation_wnids = reference.load_meta_file(tmp_path)
    assert [kit.wnids[label] for label in kit.validation_labels] == validation_wnids


@in_process
def test_archive_and_folder_are_the_same_and_nothing_is_written(archive: Path) -> None:
    kit = read_devkit(archive)
    assert list(archive.parent.iterdir()) == [archive]
    plain = archive.with_suffix("")
    plain.write_bytes(gzip.decompress(archive.read_bytes()))
    folder = unpacked(archive)
    assert read_devkit(plain) == kit
    assert read_devkit(folder) == kit
    assert read_devkit(folder.parent) == kit
    assert read_devkit(folder.rename(folder.with_name("kit"))) == kit


@in_process
def test_any_number_of_classes_and_images_is_read(tmp_path: Path) -> None:
    path = tmp_path / "kit.tar.gz"
    wnid = "n01440764"
    write_devkit(path, wnids=[wnid], words=["tench"], validation_wnids=[wnid] * 3)
    assert read_devkit(path) == Devkit((wnid,), ("tench",), (0, 0, 0))


@in_process
def test_lines_may_end_as_on_windows_and_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "kit.tar.gz"
    labels = [
        read_devkit(pack_devkit(path, meta=encode_meta(SYNSETS), truth=truth)).validation_labels
        for truth in (TRUTH, TRUTH.replace(b"\n", b"\r\n"), TRUTH.rstrip(b"\n"))
    ]
    assert labels[0] == labels[1] == labels[2]


def test_only_the_published_kit_is_accepted(archive: Path) -> None:
    said = f"{KIT}.tar.gz as published, with MD5 {devkit.MD5}; fetch {KIT}.tar.gz again, or"
    assert said in refusal(archive)
    assert said in refusal(unpacked(archive))
    assert said in refusal(archive.parent / KIT / META)


@pytest.mark.slow
def test_another_kit_is_accepted_with_partial(archive: Path) -> None:
    kit = read_devkit(archive, partial=True)
    assert [kit.wnids[label] for label in kit.validation_labels] == VALIDATION


def refusal(path: Path, *, partial: bool = False) -> str:
    """The one message about `path`, which names the path and the remedy."""
    with pytest.raises(ValueError) as caught:
        read_devkit(path, partial=partial)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "; give " in message or "; fetch " in message
    return message


@pytest.mark.parametrize(
    ("truth", "line", "shown"),
    [
        (b"5\nn01440764\n1\n", 2, "n01440764"),
        (b"5\n\n1\n", 2, ""),
        (b"0\n", 1, "0"),
        (b"5\n1\n7\n", 3, "7"),
        (b"5\n-1\n", 2, "-1"),
        (b"1.0\n", 1, "1.0"),
        (b"1_0\n", 1, "1_0"),
        (b"5 1\n", 1, "5 1"),
        (b"1" * 5000, 1, "1" * 40),
        ("\uff11\n".encode(), 1, r"\xef\xbc\x91"),
    ],
)
@in_process
def test_a_line_that_is_not_an_id_is_reported_with_its_number(
    truth: bytes, line: int, shown: str, tmp_path: Path
) -> None:
    path = pack_devkit(tmp_path / "kit.tar.gz", meta=encode_meta(SYNSETS), truth=truth)
    assert f"{KIT}/{GROUND_TRUTH}:{line}: {shown!r} is not an ILSVRC2012_ID" in refusal(path)
    assert "in 1..6" in refusal(path)
    assert f"{path.parent / KIT / GROUND_TRUTH}:{line}: " in refusal_of_folder(path)


def refusal_of_folder(archive: Path) -> str:
    with pytest.raises(ValueError) as caught:
        read_devkit(unpacked(archive))
    return str(caught.value)


@in_process
def test_an_empty_ground_truth_is_reported(tmp_path: Path) -> None:
    path = pack_devkit(tmp_path / "kit.tar.gz", meta=encode_meta(SYNSETS), truth=b"")
    assert "ground_truth.txt is empty" in refusal(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({0: {"kit_id": 2}}, "does not use each ILSVRC2012_ID in 1..6 once"),
        ({5: {"kit_id": 7}}, "does not use each ILSVRC2012_ID in 1..6 once"),
        ({2: {"kit_id": 0}}, "does not use each ILSVRC2012_ID in 1..6 once"),
        ({1: {"wnid": "n01443537"}}, "has the WNID n01443537 more than once"),
        ({0: {"wnid": "n1443537"}}, "has the WNID 'n1443537', which is not n followed by 8 digits"),
        ({0: {"wnid": "n01443537\n"}}, r"has the WNID 'n01443537\n', which is not"),
        ({0: {"wnid": "../../etc"}}, "has the WNID '../../etc', which is not"),
        ({0: {"wnid": "n\uff101443537"}}, "has the WNID 'n\uff101443537', which is not"),
        ({0: {"children": (2, 3)}}, "does not use each ILSVRC2012_ID in 1..5 once"),
        ({place: {"children": (1,)} for place in range(6)}, "has no classes"),
        ({1: {"kit_id": 2.5}}, "cannot be read: 2.5 is not a whole number"),
        ({1: {"kit_id": float("nan")}}, "cannot be read: nan is not a whole number"),
        ({1: {"kit_id": "2"}}, "cannot be read: '2' is not a whole number"),
        ({1: {"wnid": 2}}, "cannot be read: 2 is not text"),
        ({1: {"words": np.array(["one", "two"])}}, "cannot be read: array(['one', 'two']"),
    ],
)
@in_process
def test_classes_that_contradict_themselves_are_refused(
    changed: Mapping[int, dict[str, object]], said: str, tmp_path: Path
) -> None:
    synsets = [replace(synset, **changed.get(at, {})) for at, synset in enumerate(SYNSETS)]
    path = pack_devkit(tmp_path / "kit.tar.gz", meta=encode_meta(synsets), truth=TRUTH)
    assert f"{path}: {KIT}/{META} {said}" in refusal(path)


@in_process
def test_a_whole_number_may_be_stored_as_a_double(tmp_path: Path) -> None:
    doubles = [replace(synset, kit_id=float(synset.kit_id)) for synset in SYNSETS]
    kits = [
        read_devkit(pack_devkit(tmp_path / "kit.tar.gz", meta=encode_meta(synsets), truth=TRUTH))
        for synsets in (SYNSETS, doubles)
    ]
    assert kits[0] == kits[1]


def test_a_missing_kit_is_reported(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing.tar.gz")
    (tmp_path / "empty").mkdir()
    assert "contains nothing, but not both" in refusal(tmp_path / "empty", partial=True)
    os.mkfifo(tmp_path / "pipe")
    assert "is not a plain file" in refusal(tmp_path / "pipe", partial=True)


@pytest.mark.parametrize("other", ["ILSVRC2012_devkit_t3", "ILSVRC2014_devkit", "devkit-1.0"])
def test_another_kit_is_named(other: str, tmp_path: Path) -> None:
    path = tmp_path / f"{other}.tar.gz"
    pack_devkit(path, meta=encode_meta(SYNSETS), truth=TRUTH, kit=other)
    assert f"contains {other}, {other}/readme.txt, {other}/data" in refusal(path, partial=True)


def test_the_folder_of_another_kit_is_refused(archive: Path) -> None:
    folder = unpacked(archive)
    other = folder.rename(folder.with_name("ILSVRC2012_devkit_t3"))
    assert "as published" in refusal(other)
    kit_2010 = other.rename(folder.with_name("devkit-1.0"))
    (kit_2010 / GROUND_TRUTH).rename(kit_2010 / "data/ILSVRC2010_validation_ground_truth.txt")
    said = refusal(kit_2010, partial=True)
    assert "contains data, data/ILSVRC2010_validation_ground_truth.txt, data/meta.mat, but" in said


def test_archives_of_images_are_refused(tmp_path: Path) -> None:
    val = official.write_val_archive(tmp_path / "val.tar", [b"image"] * 9)
    said = refusal(val, partial=True)
    assert "contains ILSVRC2012_val_00000001.JPEG, ILSVRC2012_val_00000002.JPEG" in said
    train = {"n01440764": {"n01440764_1.JPEG": b"image"}}
    path = official.write_train_archive(tmp_path / "train.tar", train)
    assert "contains n01440764.tar, but not both" in refusal(path, partial=True)


@pytest.mark.parametrize("lost", [META, GROUND_TRUTH])
def test_a_missing_file_is_reported(lost: str, archive: Path) -> None:
    folder = unpacked(archive)
    (folder / lost).unlink()
    assert GROUND_TRUTH in refusal(folder, partial=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, KIT)
    assert f"but not both {META} and {GROUND_TRUTH}" in refusal(archive, partial=True)


def test_a_link_is_not_followed(archive: Path) -> None:
    folder = unpacked(archive)
    (folder / META).rename(folder.parent / "elsewhere.mat")
    (folder / META).symlink_to(folder.parent / "elsewhere.mat")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, KIT)
    refusal(archive, partial=True)


def test_every_truncated_archive_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devkit, "MD5", md5(archive))
    content = archive.read_bytes()
    for size in range(0, len(content), 7):
        archive.write_bytes(content[:size])
        assert "as published" in refusal(archive)


def test_every_damaged_byte_of_an_archive_is_refused(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devkit, "MD5", md5(archive))
    content = bytearray(archive.read_bytes())
    for at in range(0, len(content), 5):
        content[at] ^= 0x41
        archive.write_bytes(content)
        assert "as published" in refusal(archive)
        content[at] ^= 0x41


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.9])
def test_a_truncated_archive_is_refused_with_partial(archive: Path, share: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    assert "is not a tar archive, or is damaged (" in refusal(archive, partial=True)


def nested(depth: int) -> bytes:
    """A cell array within a cell array within ...: scipy overflows its stack."""
    header = np.array([6, 8, 1, 0, 5, 8, 1, 1, 1, 0], "<u4").tobytes()
    tags = (np.array([14, 8 + 48 * level - 8], "<u4").tobytes() for level in range(depth, 0, -1))
    return encode_meta(SYNSETS)[:128] + b"".join(tag + header for tag in tags)


@pytest.mark.slow
def test_a_file_that_crashes_scipy_is_refused(tmp_path: Path) -> None:
    path = pack_devkit(tmp_path / "kit.tar.gz", meta=nested(100_000), truth=TRUTH)
    assert f"{KIT}/{META} cannot be read: scipy crashed; fetch" in refusal(path, partial=True)


@in_process
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"", ""),
        (lambda: b"MATLAB 7.3 MAT-file".ljust(200), ""),
        (lambda: encode_meta(SYNSETS)[:128], "'synsets'"),
        (lambda: encode_meta(SYNSETS)[:-9], ""),
        (lambda: encode_meta(SYNSETS, name="wnids"), "'synsets'"),
        (lambda: saved({"synsets": np.arange(3.0)}), ""),
        (lambda: saved({"synsets": {"ILSVRC2010_ID": 1}}), "ILSVRC2012_ID"),
    ],
)
def test_another_mat_is_refused(make: Callable[[], bytes], said: str, tmp_path: Path) -> None:
    path = pack_devkit(tmp_path / "kit.tar.gz", meta=make(), truth=TRUTH)
    message = refusal(path)
    assert f"{KIT}/{META} cannot be read: " in message
    assert said in message


def saved(variables: dict[str, object]) -> bytes:
    content = io.BytesIO()
    savemat(content, variables)
    return content.getvalue()


def test_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kit.tar.gz"
    pack_devkit(path, meta=encode_meta(SYNSETS), truth=bytes(devkit.LIMIT_BYTES + 1))
    assert "ground_truth.txt is over 16 MiB" in refusal(path, partial=True)
    path.write_bytes(gzip.compress(bytes(64 << 20), 1))
    assert "contains nothing, but not both" in refusal(path, partial=True)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "ILSVRC2012_img_train.tar"
    with path.open("wb") as stream:
        stream.truncate(138 << 30)
    assert "as published" in refusal(path)


def test_a_sparse_bomb_is_refused(tmp_path: Path) -> None:
    """A member may claim holes of any size, which take no bytes in the archive."""
    content = bytearray(512)
    size = b"%011o\0" % (1 << 32)
    content[: len(f"{KIT}/{META}")] = f"{KIT}/{META}".encode()
    content[124:136] = b"%011o\0" % 0
    content[156:157] = b"S"
    content[257:265] = b"ustar  \0"
    content[483:495] = size
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + sum(content[156:]) + 8 * 32)
    truth = official.tar({f"{KIT}/{GROUND_TRUTH}": TRUTH})
    path = tmp_path / "kit.tar"
    path.write_bytes(bytes(content) + truth)
    assert "meta.mat is over 16 MiB" in refusal(path, partial=True)


def test_the_official_archives_are_flat_and_always_the_same(tmp_path: Path) -> None:
    images = {"n2": {"n2_7.JPEG": b"seven", "n2_1.JPEG": b"one"}, "n1": {"n1_3.JPEG": b"three"}}
    path = official.write_train_archive(tmp_path / "train.tar", images)
    with tarfile.open(path, "r:") as outer:
        found: dict[str, dict[str, bytes]] = {}
        for member in outer:
            inner = outer.extractfile(member)
            with tarfile.open(fileobj=inner, mode="r:") as tar:
                contents = {each.name: tar.extractfile(each) for each in tar}
                found[member.name] = {name: c.read() for name, c in contents.items() if c}
    assert found == {f"{wnid}.tar": members for wnid, members in images.items()}
    assert [*found["n2.tar"]] == ["n2_7.JPEG", "n2_1.JPEG"]
    again = official.write_train_archive(tmp_path / "again.tar", images)
    assert again.read_bytes() == path.read_bytes()
    assert encode_meta(SYNSETS) == encode_meta(SYNSETS)
    assert b"2012".ljust(4) in encode_meta(SYNSETS)[:116], "not the time at which it was written"
