"""The loader with images on the GPU, compared with the CPU."""

from pathlib import Path

import pytest
import torch

from pipeline.config.schema import Dali, ResizeCenterCrop
from pipeline.loaders import Batch
from tests.support.images import make_images, write_pictures
from tests.support.loading import assert_equal, dali, evaluated, joined, trained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

GPU = torch.device("cuda", 0)
MIXED, ON_CPU = Dali(threads=2, decode="mixed"), Dali(threads=2, decode="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = make_images(48, classes=3, size=(320, 240), seed=0)
    splits = {"train": pictures, "val": pictures[:21]}
    return write_pictures(tmp_path_factory.mktemp("dataset"), splits, classes=3)


def mean_difference(ours: list[Batch], theirs: list[Batch]) -> float:
    """In levels of 0 to 255."""
    one, other = joined(ours), joined(theirs)
    assert torch.equal(one.labels.cpu(), other.labels.cpu())
    return (one.images.cpu().float() - other.images.cpu().float()).abs().mean().item()


@pytest.mark.parametrize("spec", [MIXED, ON_CPU], ids=["mixed", "cpu"])
def test_training_batches_on_the_gpu_agree_with_the_cpu(folder: Path, spec: Dali) -> None:
    ours = trained(dali(folder, spec=spec, device=GPU), 1, 5)
    assert {batch.images.device for batch in ours} == {GPU}
    assert {batch.labels.device for batch in ours} == {GPU}
    assert ours[0].images.dtype == torch.uint8
    difference = mean_difference(ours, trained(dali(folder), 1, 5))
    assert difference < (2.0 if spec is MIXED else 1e-9)  # the GPU decoder upsamples differently


def test_evaluation_on_the_gpu_agrees_with_the_cpu(folder: Path) -> None:
    crop = ResizeCenterCrop(resize=64, size=56)
    ours = evaluated(dali(folder, evaluation=crop, spec=MIXED, device=GPU))
    theirs = evaluated(dali(folder, evaluation=crop))
    assert mean_difference(ours, theirs) < 1.0
    assert sum(len(batch.labels) for batch in ours) == 21


def test_region_decoding_changes_little(folder: Path) -> None:
    region = Dali(threads=2, decode="mixed", region_decode=True)
    ours = trained(dali(folder, spec=region, device=GPU), 1, 4)
    theirs = trained(dali(folder, spec=MIXED, device=GPU), 1, 4)
    assert mean_difference(ours, theirs) < 1.0


def test_a_batch_keeps_its_pixels_while_later_ones_are_decoded(folder: Path) -> None:
    with dali(folder, spec=MIXED, device=GPU).train(range(1, 17)) as stream:
        held = [next(stream) for _ in range(8)]
        for _ in stream:
            torch.cuda._sleep(1_000_000)  # the GPU falls behind the loader
    assert_equal(held, trained(dali(folder, spec=MIXED, device=GPU), 1, 8))


@pytest.mark.parametrize("spec", [MIXED, ON_CPU], ids=["mixed", "cpu"])
def test_a_batch_is_not_reused_before_the_step_has_read_it(folder: Path, spec: Dali) -> None:
    """The host runs ahead, and drops each batch before the GPU has begun to read it."""
    loader = dali(folder, spec=spec, device=GPU)
    with loader.train(range(1, 25)) as stream:
        expected = [batch.images.sum().item() for batch in stream]  # each is waited for
    sums: list[torch.Tensor] = []
    with loader.train(range(1, 25)) as stream:
        for batch in stream:
            torch.cuda._sleep(40_000_000)  # about 20 ms: the GPU falls behind
            sums.append(batch.images.sum())  # queued
            del batch
    assert [each.item() for each in sums] == expected


def test_holding_a_batch_never_waits_for_the_gpu(folder: Path) -> None:
    with dali(folder, spec=MIXED, device=GPU).train(range(1, 9)) as stream:
        next(stream)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in stream:
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_corrupt_images_are_replaced_on_the_gpu_too(tmp_path: Path) -> None:
    pictures = make_images(24, classes=24, size=(40, 32), seed=0)
    folder = write_pictures(tmp_path, {"train": pictures, "val": pictures}, classes=24)
    for number in (3, 4):
        file = folder / "images/train" / pictures[number].name
        file.write_bytes(b"x" * file.stat().st_size)
    with dali(folder, on_corrupt="skip", spec=MIXED, device=GPU).train(range(1, 3)) as stream:
        labels = torch.cat([batch.labels for batch in stream]).tolist()
        assert stream.replaced == 2
    assert sorted(labels) == sorted([*set(range(24)) - {3, 4}, 5, 5])
