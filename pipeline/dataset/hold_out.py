"""Which part of a split is held out, such as for validation: a pure function of the images.

For each class, the images with the smallest SHA-256 of (salt, digest) are held out. So copies of an
image stay together, and an image that is added or removed moves at most a few others of its class:
those next to the border.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def held_out(
    labels: NDArray[np.int32], digests: NDArray[np.uint8], *, fraction: float, salt: str
) -> NDArray[np.bool_]:
    """Return which of n images are held out: about `fraction` of each class; bool of shape (n,).

    `digests` has shape (n, 16). Of a class with two or more different images, at least one is held
    out and at least one is not. Copies with other labels follow the one with the lowest label.
    """
    assert 0 < fraction < 1, "checked by the caller"
    if not len(labels):
        return np.zeros(0, np.bool_)
    keys = np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").reshape(-1)
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    images = digests[first]
    owner = np.full(len(images), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(owner, place, labels)
    order = np.lexsort((*_ranks(images, salt).T[::-1], owner))
    counts = np.bincount(owner)
    wanted = np.floor(fraction * counts + 0.5).astype(np.int64)
    wanted = np.where(counts > 1, np.clip(wanted, 1, counts - 1), 0)
    begin = np.cumsum(counts) - counts
    chosen = np.zeros(len(images), np.bool_)
    chosen[order] = np.arange(len(order)) - begin[owner[order]] < wanted[owner[order]]
    return chosen[place]


def _ranks(images: NDArray[np.uint8], salt: str) -> NDArray[np.uint64]:
    """Return the SHA-256 of each image as four numbers: uint64 of shape (n, 4)."""
    seed = hashlib.sha256(f"{salt}:".encode())
    ranks = bytearray()
    for image in images:
        state = seed.copy()
        state.update(image.tobytes())
        ranks += state.digest()
    return np.frombuffer(bytes(ranks), ">u8").astype(np.uint64).reshape(-1, 4)
