"""Five lines classify an image with the core dependencies alone, as evaluation sees it."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from pipeline.checkpoint import TrainedOn
from pipeline.config.schema import model_named
from pipeline.weights import Classifier, evaluation_pixels, open_classifier
from pipeline.weights.average import average
from tests.support.core_only import REFUSED, ROOT, run_core_only
from tests.support.photographs import smooth
from tests.support.snapshots import flip_a_bit
from tests.support.stored_networks import (
    CLASSES,
    Run,
    digits,
    experienced,
    logits,
    make_run,
    normalized,
)

SMALL = model_named("cifar_resnet8")
IDS = tuple(f"n{number:08}" for number in range(CLASSES))
WORDS = tuple(f"word {number}" for number in range(CLASSES))
DATASET = TrainedOn("digits", "f", IDS, WORDS)
NO_DATASET = ("dataset", "loaders", "storage", "tracking", "augment")


def save(run: Run, step: int, network: nn.Module, dataset: TrainedOn | None = DATASET) -> Path:
    return run.save(step, {"model": network.state_dict()}, dataset, top1_error_percent=9.0 + step)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path / "runs/resnet50-3f9c1a", SMALL)
    for step in (1, 2):
        save(made, step, experienced(SMALL, seed=step))
    return made


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    Image.fromarray(smooth(50, 40)).save(tmp_path / "cat.jpg")
    return tmp_path / "cat.jpg"


def predicted(run: Run, network: nn.Module, image: Path) -> torch.Tensor:
    """The probabilities, worked out step by step."""
    with Image.open(image) as opened:
        pixels = evaluation_pixels(opened, run.config.data.eval)[None]
    return logits(normalized(network), pixels).softmax(1)[0]


def assert_gives(classifier: Classifier, image: Path, expected: torch.Tensor) -> None:
    torch.testing.assert_close(classifier(image).probabilities, expected, rtol=1e-5, atol=1e-6)


def five_lines(document: str) -> str:
    """The code of a document that opens a classifier."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "open_classifier" in block)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 5
    return code


def test_the_documents_show_the_same_five_lines() -> None:
    assert five_lines("README.md") == five_lines("docs/checkpoints.md")


@pytest.mark.process
@pytest.mark.parametrize("document", ["docs/checkpoints.md"])
def test_the_five_lines_of_the_documents_need_the_core_alone(
    run: Run, cat: Path, document: str
) -> None:
    loaded = "\nfor name in sorted(sys.modules): print(name, file=sys.stderr)"
    done = run_core_only(five_lines(document) + loaded, cwd=cat.parent)
    assert done.returncode == 0, done.stderr
    best = predicted(run, experienced(SMALL, seed=2), cat).topk(5)
    assert done.stdout.splitlines() == [
        f"{probability:6.1%}  {WORDS[number]}"
        for probability, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    modules = set(done.stderr.splitlines())
    assert {"torch", "pipeline.weights"} <= modules
    assert not modules & {*REFUSED, *(f"pipeline.{name}" for name in NO_DATASET)}


@pytest.mark.process
def test_every_form_of_weights_opens_without_a_dataset(tmp_path: Path) -> None:
    names = ("average", "batch_statistics", "convert", "find", "inspect", "inspection_report")
    imports = "\n".join(f"import pipeline.weights.{name}" for name in names)
    check = f"assert not {{f'pipeline.{{name}}' for name in {NO_DATASET}}} & sys.modules.keys()"
    done = run_core_only(f"{imports}\nimport pipeline.config.load\n{check}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_run_a_checkpoint_and_an_average_open(run: Run, cat: Path, tmp_path: Path) -> None:
    first, second = (experienced(SMALL, seed=step) for step in (1, 2))
    paths = [run.folder / f"checkpoints/step-0000000{step}" for step in (1, 2)]
    assert_gives(open_classifier(run.folder), cat, predicted(run, second, cat))
    assert_gives(open_classifier(run.folder, best=True), cat, predicted(run, first, cat))
    assert_gives(open_classifier(str(run.folder), step=1), cat, predicted(run, first, cat))
    assert_gives(open_classifier(paths[0]), cat, predicted(run, first, cat))
    average(paths).save(tmp_path / "mean")
    mean = open_classifier(tmp_path / "mean")
    assert mean.names == WORDS
    assert not torch.allclose(mean(cat).probabilities, predicted(run, second, cat), rtol=1e-3)


def test_the_moving_average_is_used_unless_live(tmp_path: Path, cat: Path) -> None:
    run = make_run(tmp_path / "run", SMALL)
    live, ema = experienced(SMALL, seed=1), experienced(SMALL, seed=2)
    smoothed = {name: v for name, v in ema.state_dict().items() if v.is_floating_point()}
    run.save(1, {"model": live.state_dict(), "ema": smoothed})
    assert_gives(open_classifier(run.folder), cat, predicted(run, ema, cat))
    assert_gives(open_classifier(run.folder, live=True), cat, predicted(run, live, cat))


def test_names_are_words_or_ids_or_those_given_or_numbers(tmp_path: Path, cat: Path) -> None:
    network = experienced(SMALL)
    run = make_run(tmp_path / "run", SMALL)
    save(run, 1, network, TrainedOn("digits", "f", IDS))
    save(run, 2, network, dataset=None)
    given = [f"given {number}" for number in range(CLASSES)]
    assert open_classifier(run.folder, step=1).names == IDS
    assert open_classifier(run.folder, step=1, names=given).names == tuple(given)
    assert open_classifier(run.folder, step=2).names == tuple(map(str, range(CLASSES)))
    with pytest.raises(ValueError, match="has 10 classes, got 9 names"):
        open_classifier(run.folder, step=2, names=given[1:])


def test_a_prediction_is_sorted_and_sums_to_one(run: Run, cat: Path) -> None:
    prediction = open_classifier(run.folder)(cat)
    assert prediction.probabilities.sum() == pytest.approx(1)
    values = [probability for _, probability in prediction.top(99)]
    assert values == sorted(prediction.probabilities.tolist(), reverse=True)
    assert [name for name, _ in prediction.top(1)] == [WORDS[prediction.probabilities.argmax()]]


def test_an_image_in_memory_is_classified_like_its_file(run: Run, cat: Path) -> None:
    classifier = open_classifier(run.folder)
    with Image.open(cat) as image:
        assert_gives(classifier, cat, classifier(image).probabilities)


def test_bytes_of_many_images_go_through_its_module(run: Run) -> None:
    images = digits(4)
    ours = open_classifier(run.folder).module(images)
    expected = logits(normalized(experienced(SMALL, seed=2)), images)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_damaged_checkpoint_is_skipped_with_a_warning(run: Run, cat: Path) -> None:
    flip_a_bit(run.folder / "checkpoints/step-00000002")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = open_classifier(run.folder)
    assert ["step-00000002 is damaged" in str(each.message) for each in caught] == [True]
    assert_gives(classifier, cat, predicted(run, experienced(SMALL, seed=1), cat))


def test_a_file_that_is_not_an_image_is_an_os_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_text("not an image")
    classifier = open_classifier(run.folder)
    for name in ("cat.jpg", "missing.jpg"):
        with pytest.raises(OSError, match=name):
            classifier(tmp_path / name)
