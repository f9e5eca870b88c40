"""verify.py --decode finds the images that training would refuse, and odd ones."""

from pathlib import Path

import pytest

from pipeline.dataset.index import Index
from tests.support.images import Picture
from tests.support.loading import dali
from tests.support.verifying import (
    CLASSES,
    SIZE,
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
