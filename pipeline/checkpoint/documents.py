"""The documents of a checkpoint that programs read back: what its network was trained on."""

import json
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError, with_config

from pipeline.checkpoint.snapshot import STRICT, CheckpointError, Snapshot

DATASET_FILE = "dataset.json"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class TrainedOn:
    """The dataset of a checkpoint, as far as its weights depend on it."""

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    """What each logit stands for, in order: a WordNet id, or the name of a folder."""
    class_names: tuple[str, ...] = ()
    """The classes in words, if they are known."""


def describe_dataset(dataset: TrainedOn) -> str:
    """Return the text of `DATASET_FILE`, which `trained_on` reads."""
    return json.dumps(asdict(dataset), indent=2, ensure_ascii=False) + "\n"


def trained_on(snapshot: Snapshot) -> TrainedOn | None:
    """Return the dataset of a checkpoint, or None if the checkpoint is older than this document.

    Raises `CheckpointError` if the document is not valid.
    """
    text = snapshot.documents.get(DATASET_FILE)
    if text is None:
        return None
    try:
        return TypeAdapter(TrainedOn).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (DATASET_FILE, *first["loc"])))
        raise CheckpointError(f"{place}: {first['msg']}") from error
