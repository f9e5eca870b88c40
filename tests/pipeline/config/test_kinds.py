"""One word switches a section to another kind; settings that both kinds have are kept."""

from pathlib import Path

import pytest

from pipeline.config.load import ConfigError, dump, load
from pipeline.config.schema import (
    CifarPlain,
    Config,
    Cosine,
    Ddp,
    DeepSpeed,
    PadCrop,
    Polynomial,
    RandomResizedCrop,
    Shuffled,
    StepDecay,
    Synthetic,
    Windowed,
)

CONFIGS = Path(__file__).parents[3] / "configs"
STEP = CONFIGS / "resnet50.yaml"


def switch(recipe: Path, *overrides: str) -> tuple[Config, list[str]]:
    """Return the configuration, and what loading it has noted."""
    notes: list[str] = []
    return load(recipe, overrides, notes.append), notes


def recipe_with(folder: Path, section: str) -> Path:
    """Write a recipe without a schedule or `data.order`, and then `section`."""
    text = (
        "name: x\nmodel: {name: resnet50}\ntrain: {epochs: 9, global_batch: 64}\noptim: {lr: 1}\n"
    )
    path = folder / "x.yaml"
    path.write_text(text + section)
    return path


def test_another_schedule_keeps_what_both_have_and_reports_what_it_drops() -> None:
    config, notes = switch(STEP, "schedule.name=cosine")
    assert config.schedule == Cosine(warmup_epochs=5, warmup_start=0.25)
    assert notes == [
        "schedule.name=cosine drops what cosine lacks: milestones_epochs=[30, 60, 80], factor=0.1"
    ]


def test_settings_of_the_new_kind_may_be_given_in_any_order() -> None:
    overrides = ["schedule.end=0.1", "schedule.name=polynomial", "schedule.power=3"]
    config, notes = switch(STEP, *overrides)
    assert config.schedule == Polynomial(warmup_epochs=5, warmup_start=0.25, power=3, end=0.1)
    assert len(notes) == 1


def test_what_the_new_kind_needs_is_asked_for() -> None:
    quickstart = CONFIGS / "quickstart.yaml"
    with pytest.raises(ConfigError, match=r"exactly one of milestones_epochs or milestones_steps"):
        switch(quickstart, "schedule.name=step")
    config, notes = switch(quickstart, "schedule.name=step", "schedule.milestones_steps=[9]")
    assert config.schedule == StepDecay(warmup_epochs=2, milestones_steps=(9,))
    assert notes == []


def test_the_same_name_drops_nothing() -> None:
    assert switch(STEP, "schedule.name=step") == (load(STEP), [])


@pytest.mark.parametrize(
    ("section", "override", "expected", "dropped"),
    [
        ("train: {name: pad_crop, size: 96, pad: 9}", "data.train.name=random_resized_crop",
         RandomResizedCrop(size=96), "pad=9"),
        ("train: {size: 96, scale: [0.5, 1]}", "data.train.name=pad_crop",
         PadCrop(size=96), "scale=[0.5, 1]"),
        ("order: {name: windowed, lanes: 2}", "data.order.name=shuffled", Shuffled(), "lanes=2"),
        ("order: {}", "data.order.name=windowed", Windowed(), ""),
        ("loader: {threads: 3}", "data.loader.name=synthetic", Synthetic(), "threads=3"),
    ],
)  # fmt: skip
def test_sections_inside_a_section(
    tmp_path: Path, section: str, override: str, expected: object, dropped: str
) -> None:
    recipe = recipe_with(tmp_path, f"schedule: {{name: cosine}}\ndata:\n  dir: d\n  {section}\n")
    config, notes = switch(recipe, override)
    assert getattr(config.data, override.split(".")[1]) == expected
    assert [note.partition(": ")[2] for note in notes] == ([dropped] if dropped else [])


def test_another_engine_takes_what_it_can_of_a_saved_configuration(tmp_path: Path) -> None:
    """A run's config.yaml has every setting, also those that only one engine allows."""
    saved = tmp_path / "config.yaml"
    saved.write_text(dump(load(STEP)))
    config, notes = switch(saved, "engine.name=deepspeed")
    assert config.engine == DeepSpeed()
    assert notes == ["engine.name=deepspeed drops what deepspeed lacks: bucket_megabytes=25.0"]
    config, notes = switch(saved, "engine.name=deepspeed", "engine.zero_stage=2")
    assert config.engine == DeepSpeed(zero_stage=2, bucket_megabytes=25.0)
    assert notes == []
    saved.write_text(dump(config))
    config, notes = switch(saved, "engine.name=ddp")
    assert config.engine == Ddp(bucket_megabytes=25.0)
    saved.write_text(dump(load(STEP, ["engine={name: deepspeed}"])))
    config, notes = switch(saved, "engine.name=ddp")
    assert config.engine == Ddp()
    assert "bucket_megabytes=null" in notes[0]


def test_a_network_of_another_family() -> None:
    config, notes = switch(STEP, "model.name=cifar_plain20", "model.batch_norm_group=8")
    assert config.model == CifarPlain(name="cifar_plain20", batch_norm_group=8)
    assert notes == []


def test_mistakes_stay_mistakes(tmp_path: Path) -> None:
    """Only what another kind takes is dropped, and nothing that the command line sets."""
    schedule = "schedule: {name: step, milestones_epochs: [3], factr: 0.1, warmup_epochs: x}\n"
    recipe = recipe_with(tmp_path, f"{schedule}data: {{dir: d}}\n")
    with pytest.raises(ConfigError) as caught:
        switch(recipe, "schedule.name=cosine")
    first, second = str(caught.value).split("\n")
    assert "schedule.factr: unknown key" in first
    assert "schedule.warmup_epochs: must be a valid number" in second
    with pytest.raises(ConfigError, match=r"factor=0\.2: is a key of step only; remove it, or cho"):
        switch(STEP, "schedule.factor=0.2", "schedule.name=cosine")
    with pytest.raises(ConfigError, match=r"'cosin' is not a choice; did you mean cosine"):
        switch(STEP, "schedule.name=cosin")
