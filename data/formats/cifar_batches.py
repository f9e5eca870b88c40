"""The batch files of the original CIFAR-10 archive, read without trusting them.

They are pickles, and a pickle can run any program. Only containers, numbers, strings and numpy
arrays are accepted, the arrays as bytes that are never interpreted; everything else is refused.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

SIDE_PIXELS = 32
META = "batches.meta"
BATCHES = {"train": "data_batch_*", "val": "test_batch"}
REMEDY = "fetch the archive again"


@dataclass(frozen=True, slots=True)
class CifarBatch:
    """The images of one file: `pixels` is uint8 of shape (images, 32, 32, 3), red first."""

    pixels: NDArray[np.uint8]
    labels: tuple[int, ...]


def read_classes(folder: Path) -> tuple[str, ...]:
    """Return the official class names, in the order of the labels."""
    path = folder / META
    names = _list(_load(path), b"label_names", bytes)
    if not names:
        raise ValueError(f"{path} has no label_names; {REMEDY}")
    return tuple(name.decode("utf-8", "replace") for name in names)


def read_batch(path: Path, classes: int) -> CifarBatch:
    """Read one batch file; raises `ValueError` if it is not in the format of CIFAR-10."""
    content = _load(path)
    array, labels = content.get(b"data"), _list(content, b"labels", int)
    if not labels or not isinstance(array, _Array):
        raise ValueError(f"{path} lacks data or labels; {REMEDY}")
    shape = (len(labels), 3 * SIDE_PIXELS**2)
    if array.shape != shape or len(array.content) != shape[0] * shape[1]:
        raise ValueError(f"{path}: data is {array.shape}, not bytes of shape {shape}; {REMEDY}")
    if min(labels) < 0 or max(labels) >= classes:
        raise ValueError(f"{path} has labels outside 0..{classes - 1}; {REMEDY}")
    rows = np.frombuffer(array.content, np.uint8).reshape(shape, order=array.order)
    planes = rows.reshape(-1, 3, SIDE_PIXELS, SIDE_PIXELS)
    return CifarBatch(planes.transpose(0, 2, 3, 1), labels)


class _Array:
    """The state of a numpy array, never interpreted."""

    shape: object = None
    order: Literal["C", "F"] = "C"
    content = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, _, by_columns, content = state
        if not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array contains more than numbers")
        self.order = "F" if by_columns else "C"
        self.content = content


class _Ignored:
    """The type of an array, which its size in bytes replaces."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _array(*_: object) -> _Array:
    return _Array()


ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _Ignored,
    ("numpy", "dtype"): _Ignored,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Callable[..., object]:
        try:
            return ALLOWED[module_name, global_name]
        except KeyError:
            name = f"{module_name}.{global_name}"
            raise pickle.UnpicklingError(f"it calls {name}, unlike any CIFAR-10 file") from None


def _load(path: Path) -> dict[bytes, object]:
    try:
        content: Any = _Unpickler(BytesIO(path.read_bytes()), encoding="bytes").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may break its reader in any way
        raise ValueError(f"{path} is refused: {error}; {REMEDY}") from error
    return cast("dict[bytes, object]", content) if isinstance(content, dict) else {}


def _list(content: dict[bytes, object], key: bytes, kind: type[T]) -> tuple[T, ...]:
    """Return the list at `key`; empty unless all of its values have the type `kind`."""
    found = content.get(key)
    values = cast("list[object]", found) if isinstance(found, list) else []
    kept = tuple(value for value in values if isinstance(value, kind))
    return kept if len(kept) == len(values) else ()
