"""Each rank uses a GPU of its own, however its launcher hands out the GPUs of a node."""

import pytest

from pipeline.distributed.devices import device_index, shared_gpus


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_that_see_all_gpus_take_one_each(ranks: int) -> None:
    assert [device_index(4, local, ranks) for local in range(ranks)] == list(range(ranks))


def test_ranks_that_see_one_gpu_each_take_it() -> None:
    assert [device_index(1, local, 4) for local in range(4)] == [0, 0, 0, 0]
    assert shared_gpus(["GPU-a", "GPU-b", "GPU-c", "GPU-d"]) == ""


def test_ranks_on_the_cpu_share_nothing() -> None:
    assert shared_gpus(["", "", ""]) == ""


def test_two_ranks_on_one_gpu_are_refused_with_the_number_that_fits() -> None:
    said = shared_gpus(["GPU-a", "GPU-b", "GPU-b", "GPU-a", "GPU-c"])
    assert "GPU-a is used by ranks 0, 3; GPU-b is used by ranks 1, 2" in said
    assert "at most 3 ranks" in said
