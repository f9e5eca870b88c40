"""Images made smaller: the size, the quality, and the same bytes each time."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.sources.shards.reencoding import Reencoding
from pipeline.dataset.index import Index, read_manifest
from pipeline.dataset.samples import digest
from tests.support.images import make_dataset
from tests.support.odd_images import turned
from tests.support.sharding import contents, stored, write

SMALL = Reencoding(48, 90)
WIDE, HIGH = (160, 96), (96, 160)


def smooth(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    """An image with detail as coarse as in photographs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference in levels of 0 to 255."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


@pytest.mark.parametrize("size", [WIDE, HIGH, (49, 49), (1000, 50), (101, 67)])
def test_the_shorter_side_is_as_asked_and_the_aspect_ratio_kept(size: tuple[int, int]) -> None:
    image = decoded(SMALL.apply(encoded(smooth(size))))
    assert image.format == "JPEG"
    assert min(image.size) == 48
    assert max(image.size) == pytest.approx(max(size) * 48 / min(size), abs=0.5)


@pytest.mark.parametrize("size", [(48, 48), (48, 300), (20, 30)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_is_small_enough_keeps_its_bytes(size: tuple[int, int], kind: str) -> None:
    content = encoded(smooth(size), kind)
    assert SMALL.apply(content) == content


def test_quality_alone_never_makes_an_image_larger() -> None:
    for original in (30, 60, 95):
        content = encoded(smooth(WIDE), quality=original)
        again = Reencoding(None, 60).apply(content)
        assert decoded(again).size == WIDE
        assert len(again) < len(content) if original > 60 else again == content


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_smaller_images_look_like_their_resized_originals(subsampling: str) -> None:
    image = smooth(WIDE)
    small = decoded(Reencoding(48, 95).apply(encoded(image, quality=98, subsampling=subsampling)))
    assert difference(small, image.resize(small.size, Image.Resampling.LANCZOS)) < 1.5


@pytest.mark.parametrize(
    ("mode", "kind", "becomes"),
    [
        ("L", "JPEG", "L"),
        ("CMYK", "JPEG", "RGB"),
        ("P", "PNG", "RGB"),
        ("RGBA", "PNG", "RGB"),
        ("LA", "PNG", "L"),
        ("1", "PNG", "L"),
    ],
)
def test_colours_become_rgb_and_grey_stays_grey(mode: str, kind: str, becomes: str) -> None:
    content = encoded(smooth(WIDE, mode), kind)
    small = decoded(SMALL.apply(content))
    assert small.mode == becomes
    expected = decoded(content).convert(becomes).resize(small.size, Image.Resampling.LANCZOS)
    assert difference(small, expected) < 6


def test_sixteen_bits_become_eight() -> None:
    levels = np.linspace(0, 65535, WIDE[0] * WIDE[1]).reshape(WIDE[::-1]).astype(np.uint16)
    small = decoded(SMALL.apply(encoded(Image.fromarray(levels), "PNG")))
    expected = Image.fromarray((levels // 257).astype(np.uint8)).resize(small.size)
    assert difference(small, expected) < 1.5


def test_metadata_is_dropped_and_orientation_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    profile = b"a colour profile"
    content = encoded(smooth(WIDE), exif=exif, comment=b"secret", icc_profile=profile)
    small = decoded(SMALL.apply(content))
    assert small.size == (80, 48)
    assert not small.getexif()
    assert not {"comment", "icc_profile", "exif"} & set(small.info)
    assert SMALL.apply(content) == SMALL.apply(encoded(smooth(WIDE)))


def test_noise_can_be_compressed_although_it_grows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    small = decoded(Reencoding(256, 94).apply(encoded(Image.fromarray(noise))))
    assert small.size == (341, 256)


def test_an_image_that_cannot_be_decoded_is_refused() -> None:
    content = encoded(smooth(WIDE))
    for damaged in (content[: len(content) // 2], content[:-2], b"no image"):
        with pytest.raises(ValueError, match="cannot be decoded"):
            SMALL.apply(damaged)
    deep = Image.fromarray(np.ones(WIDE, np.float32))
    with pytest.raises(ValueError, match="mode F"):
        SMALL.apply(encoded(deep, "TIFF"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("source"), train=20, val=9, size=(40, 32))


def test_shards_are_indexed_as_they_are_written(source: Path, tmp_path: Path) -> None:
    assert write(source, tmp_path / "out", "--shorter-side", 16) == 0
    for split, count in (("train", 20), ("val", 9)):
        index = Index.open(tmp_path / "out", split)
        assert len(index) == count
        for sample, (_, content) in enumerate(stored(tmp_path / "out", split)):
            assert digest(content) == index.digests[sample].tobytes()
            pixels = (int(index.widths[sample]), int(index.heights[sample]))
            assert decoded(content).size == pixels == (20, 16)


def test_the_same_images_become_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert write(source, tmp_path / name, "--shorter-side", 16, "--quality", 70) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    one, two = (read_manifest(tmp_path / name) for name in ("one", "two"))
    assert (one.fingerprint, one.request) == (two.fingerprint, two.request)
    assert "shorter side at most 16 pixels, JPEG quality 70" in one.request["source"]


def test_validation_images_can_keep_their_bytes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shorter-side", 16, "--splits", "train"]
    assert write(source, tmp_path / "out", *options) == 0
    assert "changes what is evaluated" not in capsys.readouterr().out
    before, after = (Index.open(folder, "val") for folder in (source, tmp_path / "out"))
    np.testing.assert_array_equal(before.digests, after.digests)
    assert Index.open(tmp_path / "out", "train").heights.max() == 16
    assert write(source, tmp_path / "both", "--shorter-side", 16) == 0
    assert "changes what is evaluated" in capsys.readouterr().out


def test_options_without_effect_are_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(source, tmp_path / "out", "--splits", "train") == 2
    assert "--splits needs --shorter-side or --quality" in capsys.readouterr().err
    assert write(source, tmp_path / "out", "--quality", 80, "--splits", "test") == 2
    assert "has only train, val" in capsys.readouterr().err
    assert write(tmp_path / "none", tmp_path / "out") == 2
    assert "no dataset at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_not_applied(orientation: int) -> None:
    as_stored = SMALL.apply(turned("TIFF", 1, WIDE))
    assert SMALL.apply(turned("TIFF", orientation, WIDE)) == as_stored
    assert decoded(as_stored).size == (80, 48)
