"""Checkpoints: folders of safetensors, JSON and YAML, each complete and hashed, or missing.

    checkpoints/step-00004000/
        model.safetensors  momentum.safetensors  ema.safetensors    tensors by their names
        progress.json                                               step, best error, loss scale ...
        schedule.json                                               epoch, last step, next rate ...
        config.yaml                                                 the resolved configuration
        dataset.json                                                name, fingerprint, classes
        provenance.json                                             code, libraries
        manifest.json                                               SHA-256 of each file

A checkpoint is written in the background, from a copy in host memory: under a temporary name,
flushed to disk, then renamed. Nothing is pickled.
"""

from pipeline.checkpoint.documents import DATASET_FILE, TrainedOn, describe_dataset, trained_on
from pipeline.checkpoint.groups import EMA, MODEL, saved_slots, slot_group, tensor_groups
from pipeline.checkpoint.reading import (
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    read_progress,
    verify_checkpoint,
)
from pipeline.checkpoint.retention import Retention
from pipeline.checkpoint.saving import Checkpoints
from pipeline.checkpoint.snapshot import (
    MANIFEST,
    PROGRESS,
    CheckpointError,
    Progress,
    Snapshot,
    Tensors,
    expect_same_stream,
    expect_same_tensors,
)
from pipeline.checkpoint.writing import recover_checkpoints, write_checkpoint

__all__ = [
    "DATASET_FILE",
    "EMA",
    "MANIFEST",
    "MODEL",
    "PROGRESS",
    "CheckpointError",
    "Checkpoints",
    "Progress",
    "Retention",
    "Snapshot",
    "Tensors",
    "TrainedOn",
    "describe_dataset",
    "expect_same_stream",
    "expect_same_tensors",
    "list_checkpoints",
    "newest_checkpoint",
    "read_checkpoint",
    "read_progress",
    "recover_checkpoints",
    "saved_slots",
    "slot_group",
    "tensor_groups",
    "trained_on",
    "verify_checkpoint",
    "write_checkpoint",
]
