"""verify.py --decode finds the images that training would refuse, and odd ones."""

from pathlib import Path

import pytest

from data.checking import examination
from data.formats.image_header import image_size
from pipeline.dataset.index import Index
from tests.support.images import Picture
from tests.support.loading import dali, evaluated, trained
from tests.support.odd_images import SIZE as TURNED_SIZE
from tests.support.odd_images import TURNABLE, UNUSABLE, USABLE, turned
from tests.support.verifying import (
    CLASSES,
    SIZE,
    in_file,
    noise,
    outcome,
    packed,
    pictures,
    stored,
    with_odd,
)

pytestmark = pytest.mark.timeout(60)


def test_decoding_finds_every_kind_of_image_and_no_other(tmp_path: Path) -> None:
    at = with_odd(tmp_path)
    done = outcome(tmp_path, "--decode")
    assert done.faults == {
        *(("train", at[name], "corrupt") for name in at if name.startswith("corrupt")),
        ("train", at["empty"], "empty"),
        ("train", at["wrong-size"], "wrong-size"),
    }
    assert done.findings == {
        ("train", at["not-jpeg-png"], "not-jpeg"),
        ("train", at["not-jpeg-webp"], "not-jpeg"),
        ("train", at["cmyk"], "cmyk"),
        ("train", at["large"], "large"),
        ("train", at["small"], "small"),
    }
    formats = done.report["splits"]["train"]["formats"]
    assert formats == {"jpeg": 46, "png": 1, "webp": 1, "gif": 1, "unknown": 1}
    assert outcome(tmp_path).faults == {("train", at["empty"], "empty")}


def test_faults_are_the_images_that_training_refuses(tmp_path: Path) -> None:
    at = with_odd(tmp_path)
    index = Index.open(tmp_path, "train")
    told = {int(line.rpartition("at offset ")[2].split()[0]) for line in dali(tmp_path).verify()}
    faults = {sample for _, sample, kind in outcome(tmp_path, "--decode").faults}
    assert told == {int(index.offsets[sample]) for sample in faults - {at["wrong-size"]}}


def test_all_images_may_be_corrupt(tmp_path: Path) -> None:
    cut = [
        Picture(p.name, p.content[:-200], p.size, p.label) for p in pictures(70, 1)
    ]  # more than one batch
    texts = [Picture(p.name, p.name.encode(), p.size, p.label) for p in pictures(70, 1)]
    packed(tmp_path, {"a.tar": cut, "v.tar": texts})
    faults = outcome(tmp_path, "--decode").report["faults"]
    assert [entry["split"] for entry in faults["corrupt"]] == ["train"] * 70 + ["val"] * 70


def test_another_format_is_not_odd_if_all_images_have_it(tmp_path: Path) -> None:
    made = [
        Picture(f"{n}.png", stored(noise(SIZE, n), "PNG"), SIZE, n % CLASSES) for n in range(12)
    ]
    packed(tmp_path, {"a.tar": made[:6], "v.tar": made[6:]})
    done = outcome(tmp_path, "--decode")
    assert (done.code, done.findings) == (0, set())
    assert done.report["splits"]["val"]["formats"] == {"png": 6}


def zoo(folder: Path) -> dict[str, int]:
    """Make a dataset of images of many kinds; return the sample of each."""
    made = [
        Picture(name, content, size_of(content)) for name, content in (USABLE | UNUSABLE).items()
    ]
    packed(folder, {"a.tar": made, "v.tar": made}, classes=1)
    return dict(zip(USABLE | UNUSABLE, in_file(folder, "a.tar"), strict=True))


def size_of(content: bytes) -> tuple[int, int]:
    try:
        return image_size(content)
    except ValueError:
        return SIZE


def test_faults_are_what_training_stumbles_over_and_nothing_else(tmp_path: Path) -> None:
    at = zoo(tmp_path / "in")
    done = outcome(tmp_path / "in", "--decode", "--exclude", tmp_path / "out")
    faults = {sample for split, sample, _ in done.faults if split == "train"}
    assert {name for name in at if at[name] in faults} == set(UNUSABLE)
    rest = dali(tmp_path / "out")
    assert sum(len(batch.labels) for batch in evaluated(rest)) == len(USABLE)
    trained(rest, 1, 3 * len(USABLE) // 12)  # three epochs: every image, in several crops


def test_disputed_colours_and_elongated_images_are_reported(tmp_path: Path) -> None:
    at = zoo(tmp_path)
    found = outcome(tmp_path, "--decode").findings
    kinds = {
        kind: {name for name in at if ("train", at[name], kind) in found}
        for kind in ("colours", "elongated")
    }
    assert kinds == {
        "colours": {
            "CMYK without Adobe's marker",
            "PGM of few levels",
            "PGM of 10 bits",
            "PPM of few levels",
            "TIFF of fractions",
        },
        "elongated": {"one row", "one column"},
    }


@pytest.mark.parametrize("name", TURNABLE)
def test_an_orientation_changes_neither_sizes_nor_pixels(name: str, tmp_path: Path) -> None:
    made = [
        Picture(f"{turn}", turned(name, turn), TURNED_SIZE, turn % CLASSES) for turn in range(1, 9)
    ]
    assert {image_size(picture.content) for picture in made} == {TURNED_SIZE}
    packed(tmp_path, {"a.tar": made, "v.tar": made})
    assert outcome(tmp_path, "--decode").code == 0
    trained(dali(tmp_path), 1, 4)
    images = evaluated(dali(tmp_path))[0].images
    assert all(image.equal(images[0]) for image in images)


def test_indexes_with_swapped_sizes_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier versions swapped the sides of a TIFF that its tag turns by a quarter."""
    swapped = Picture("turned", turned("TIFF", 6), TURNED_SIZE[::-1], 0)
    packed(tmp_path, {"a.tar": [*pictures(5, 1), swapped], "v.tar": pictures(6, 3)})
    sample = in_file(tmp_path, "a.tar")[5]
    assert outcome(tmp_path, "--decode").faults == {("train", sample, "wrong-size")}
    assert "; prepare the dataset again, with --replace, or leave" in capsys.readouterr().out


def test_an_image_of_another_size_than_its_header_says_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Width and height are compared with what the decoder of training makes of the image."""
    wrong = Picture("swapped", stored(noise(SIZE, 1), "TIFF"), SIZE[::-1], 0)
    packed(tmp_path, {"a.tar": [*pictures(5, 1), wrong], "v.tar": pictures(6, 3)})
    sample = in_file(tmp_path, "a.tar")[5]
    header = examination.image_size
    monkeypatch.setattr(
        examination,
        "image_size",
        lambda content: SIZE[::-1] if content == wrong.content else header(content),
    )
    assert outcome(tmp_path, "--decode").faults == {("train", sample, "wrong-size")}
