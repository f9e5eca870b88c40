"""`precision: auto` is decided once, on the devices that train, and a run keeps it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.identity import result_identity
from pipeline.config.load import load
from pipeline.config.schema import Config, Precision, Train
from pipeline.distributed.world import World
from pipeline.runs.folder import CONFIG_FILE, hold_run_folder
from pipeline.runs.precision import fastest_precision, settle_precision, slow_precision
from tests.support.run_folders import config, hold_once

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that pretends to run on a processor with or without bf16."""

    def pretend(*, avx512: bool = False, amx: bool = False) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    return pretend


def with_precision(runs_dir: Path, precision: Any, **changes: Any) -> Config:
    train = Train(epochs=10, global_batch=64, precision=precision)
    return config(runs_dir, train=train, **changes)


def start(settings: Config) -> tuple[Path, Config]:
    """Start or resume a run on this machine; return its folder and its final configuration."""
    with hold_run_folder(settings) as folder:
        settled = settle_precision(settings, folder, World())
        assert load(folder / CONFIG_FILE) == settled
        return folder, settled


def test_a_processor_without_bf16_trains_in_fp32(processor: Any) -> None:
    processor()
    assert fastest_precision(CPU) == "fp32"
    processor(avx512=True)
    assert fastest_precision(CPU) == "bf16"
    processor(amx=True)
    assert fastest_precision(CPU) == "bf16"


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_a_gpu_trains_in_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    assert fastest_precision(GPU) == expected
    assert ("Tesla T4 has no bf16" in slow_precision("bf16", GPU)) == (expected == "fp16")


def test_the_choice_is_written_and_kept_on_another_processor(
    tmp_path: Path, processor: Any
) -> None:
    auto = with_precision(tmp_path, "auto")
    processor(avx512=True)
    folder, settled = start(auto)
    assert settled.train.precision == "bf16"
    processor()
    assert start(auto) == (folder, settled)
    assert start(replace(auto, run_dir=folder))[1].train.precision == "bf16"
    assert start(load(folder / CONFIG_FILE))[0] == folder
    assert start(with_precision(tmp_path, "bf16"))[0] == folder  # the same training


def test_a_run_that_was_only_queued_has_not_decided(tmp_path: Path, processor: Any) -> None:
    """The login node makes the folder; the first node that trains decides."""
    auto = with_precision(tmp_path, "auto")
    processor(avx512=True)
    folder = hold_once(auto)
    assert load(folder / CONFIG_FILE).train.precision == "auto"
    processor()
    assert start(load(folder / CONFIG_FILE, [f"run_dir={folder}"]))[1].train.precision == "fp32"


def test_another_precision_is_another_run(tmp_path: Path, processor: Any) -> None:
    processor()
    folder, _ = start(with_precision(tmp_path, "auto"))
    assert hold_once(with_precision(tmp_path, "bf16")) != folder
    with pytest.raises(ValueError, match=r"precision is fp32 there and bf16 here"):
        hold_once(with_precision(tmp_path, "bf16", run_dir=folder))
    other = with_precision(tmp_path, "fp16")
    assert result_identity(other) != result_identity(with_precision(tmp_path, "fp32"))


@pytest.mark.parametrize(
    ("fastest", "chosen"),
    [
        (["bf16", "bf16"], "bf16"),
        (["bf16", "fp32"], "fp32"),
        (["bf16", "fp16", "bf16"], "fp16"),
        (["fp32", "fp32"], "fp32"),
    ],
)
def test_all_ranks_agree_on_what_each_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fastest: list[Precision], chosen: Precision
) -> None:
    monkeypatch.setattr(World, "gather", lambda _, mine: [*fastest])
    assert start(with_precision(tmp_path, "auto"))[1].train.precision == chosen


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_slow_precision_is_reported_with_a_remedy(precision: str, processor: Any) -> None:
    processor()
    said = slow_precision(precision, CPU)
    assert said.startswith(f"train.precision={precision}: this processor has no bf16 instructions")
    assert said.endswith("train.precision=auto chooses by the device")
    assert slow_precision("fp32", CPU) == slow_precision("auto", CPU) == ""
    processor(avx512=True)
    assert slow_precision("bf16", CPU) == ""
