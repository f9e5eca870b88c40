"""The precision of a run: `train.precision`, or the one in which its devices train fastest.

`auto` is decided at the first start, on the nodes that train, and kept in the run's config.yaml.
"""

from dataclasses import replace
from pathlib import Path

import torch

from pipeline.config.load import load_saved
from pipeline.config.schema import Config, Precision
from pipeline.distributed.world import World
from pipeline.runs.folder import CONFIG_FILE, save_config, with_choices_of

LEAST_DEMANDING_FIRST: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
FIRST_CAPABILITY_WITH_BF16 = (8, 0)


def settle_precision(config: Config, folder: Path, world: World) -> Config:
    """Return `config` with the precision of the run in `folder`, on every rank. A collective.

    The first start of a run with `auto` decides: one in which all ranks train fast.
    """
    if config.train.precision != "auto":
        return config
    stored = world.broadcast_from_main(lambda: load_saved(folder / CONFIG_FILE))
    settled = with_choices_of(config, stored)
    if settled.train.precision == "auto":
        choices = world.gather(fastest_precision(world.device))
        chosen = min(choices, key=LEAST_DEMANDING_FIRST.index)
        settled = replace(config, train=replace(config.train, precision=chosen))
        world.broadcast_from_main(lambda: save_config(settled, folder))
    return settled


def with_device_precision(config: Config, device: torch.device) -> Config:
    """Return `config` with its precision; `auto` is the one in which `device` trains fastest."""
    if config.train.precision != "auto":
        return config
    return replace(config, train=replace(config.train, precision=fastest_precision(device)))


def fastest_precision(device: torch.device) -> Precision:
    """Return bf16 if the device has instructions for it; else fp16 on a GPU, fp32 on a CPU."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY_WITH_BF16
        return "bf16" if has_bf16 else "fp16"
    return "bf16" if cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16: it has AVX512-BF16 or AMX."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]


def slow_precision(precision: str, device: torch.device) -> str:
    """Return a warning if `device` is much slower in `precision` than in another; else ""."""
    if precision == "auto" or fastest_precision(device) == "bf16":
        return ""
    match precision, device.type:
        case "bf16", "cuda":
            what = f"{torch.cuda.get_device_name(device)} has no bf16 instructions; fp16 is faster"
        case "bf16" | "fp16", "cpu":
            what = "this processor has no bf16 instructions, and is 5 to 10 times faster in fp32"
        case _:
            return ""
    return f"train.precision={precision}: {what}; train.precision=auto chooses by the device"
