"""The stream of batches, with the real DALI: independent of start, ranks and threads."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.config.schema import Dali, Data, PadCrop, RandomResizedCrop, Synthetic
from pipeline.distributed.world import World
from pipeline.loaders import Batch, open_loader
from pipeline.loaders.dali import DaliLoader
from tests.support.images import make_dataset
from tests.support.loading import (
    BATCH,
    EVAL,
    TRAIN,
    assert_equal,
    dali,
    evaluated,
    indices,
    joined,
    open_split,
    trained,
)

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[3]
IMPORT = re.compile(r"import_(extra|module)\(\s*[\"']nvidia|^\s*(from|import) nvidia", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"), train=31, val=23)


def test_batches_are_uint8_nhwc_with_the_labels_of_the_index(folder: Path) -> None:
    labels = open_split(folder).train.labels
    for step, batch in enumerate(trained(dali(folder), 1, 5), start=1):
        assert batch.images.shape == (BATCH, TRAIN.size, TRAIN.size, 3)
        assert batch.images.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == labels[indices(folder, step).samples].tolist()


@pytest.mark.parametrize("first", [2, 4, 7])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_stream_is_the_same_wherever_it_starts(folder: Path, first: int, threads: int) -> None:
    unbroken = trained(dali(folder), 1, 7)  # over more than two epochs
    spec = Dali(threads=threads, read_threads=threads, prefetch_batches=threads)
    assert_equal(trained(dali(folder, spec=spec), first, 7), unbroken[first - 1 :])


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("crop", [TRAIN, PadCrop(size=32)], ids=lambda crop: crop.name)
def test_the_slices_of_all_ranks_form_the_global_batch(
    folder: Path, size: int, crop: RandomResizedCrop | PadCrop
) -> None:
    shares = [trained(dali(folder, part=(rank, size), crop=crop), 1, 4) for rank in range(size)]
    together = [joined(list(ranks)) for ranks in zip(*shares, strict=True)]
    assert_equal(together, trained(dali(folder, crop=crop), 1, 4))


def test_region_decoding_gives_the_pixels_of_whole_decoding(folder: Path) -> None:
    whole = dali(folder, spec=Dali(threads=2, region_decode=False))
    assert_equal(trained(dali(folder), 1, 4), trained(whole, 1, 4))


def test_a_batch_keeps_its_pixels_while_later_ones_are_decoded(folder: Path) -> None:
    with dali(folder).train(range(1, 12)) as stream:
        held = list(stream)
        copies = [Batch(b.images.clone(), b.labels.clone()) for b in held]
    assert_equal(held, copies)
    assert_equal(held, trained(dali(folder), 1, 11))


def test_a_finished_stream_stays_finished(folder: Path) -> None:
    with dali(folder).train(range(1, 3)) as stream:
        assert len(list(stream)) == 2
        assert list(stream) == []
    assert trained(dali(folder), 3, 2) == []


@pytest.mark.parametrize("batch_per_rank", [1, 5, 64])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_covers_each_image_once(folder: Path, size: int, batch_per_rank: int) -> None:
    whole = joined(evaluated(dali(folder)))
    seen = torch.zeros_like(whole.images)
    for rank in range(size):
        share = evaluated(dali(folder, part=(rank, size), batch_per_rank=batch_per_rank))
        assert all(len(batch.labels) == batch_per_rank for batch in share[:-1])
        mine = joined(share)
        assert torch.equal(mine.labels, whole.labels[rank::size])
        seen[rank::size] = mine.images
    assert torch.equal(seen, whole.images)
    assert len(whole.labels) == 23


def test_a_rank_without_a_share_evaluates_nothing(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path, train=2, val=2)
    assert [len(evaluated(dali(folder, part=(rank, 4)))) for rank in range(4)] == [1, 1, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_synthetic_batches_have_the_sizes_of_real_ones(folder: Path, size: int) -> None:
    data = Data(dir=folder, train=TRAIN, eval=EVAL, loader=Synthetic())
    counted = 0
    for rank in range(size):
        loader = open_loader(
            data,
            open_split(folder),
            seed=0,
            global_batch=BATCH,
            batch_per_rank=4,
            world=World(rank=rank, size=size),
        )
        for batch in trained(loader, 3, 5):
            assert batch.images.shape == (BATCH // size, TRAIN.size, TRAIN.size, 3)
            assert batch.images.dtype == torch.uint8
            assert batch.labels.shape == (BATCH // size,)
        assert len(trained(loader, 3, 5)) == 3
        counted += sum(len(batch.labels) for batch in evaluated(loader))
        assert loader.verify() == []
    assert counted == 23


def test_dali_is_imported_by_its_loader_and_as_a_peer_alone() -> None:
    sources = [
        path for name in ("pipeline", "launch", "data") for path in (ROOT / name).rglob("*.py")
    ]
    importing = [path for path in sources if IMPORT.search(path.read_text())]
    places = "pipeline/loaders/dali.py", "launch/benchmarks/peers.py"
    assert importing == [ROOT / place for place in places]


@pytest.mark.parametrize(("spec", "load"), [(Dali(), 0.0), (Dali(hw_decoder_load=0.65), 0.65)])
def test_the_hardware_decoder_is_off_unless_asked_for(
    folder: Path, spec: Dali, load: float
) -> None:
    """The graph is built for a GPU; nothing is decoded."""
    loader = dali(folder, spec=spec, device=torch.device("cuda", 0))
    assert isinstance(loader, DaliLoader)
    decoders = SimpleNamespace(image=lambda _, **options: options)
    graph = loader._decoder._decoded(
        SimpleNamespace(decoders=decoders), SimpleNamespace(RGB=0), None, {}
    )
    assert (graph["device"], graph["hw_decoder_load"]) == ("mixed", load)
