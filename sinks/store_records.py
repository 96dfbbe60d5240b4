"""What the log says of images, as the store takes it: plain values, texts of bounded length, moments in microseconds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

NOT_REDRIVEN = NO_PLACE = -1
_LONGEST = {"tenant": 128, "id": 512, "key": 512, "batch_id": 512}
_LONGEST_SHORT = 200  # characters, of up to four bytes


class Detail(IntEnum):
    """How much a record says of the request: nothing that readers may see, only its ids, what a result repeats, everything."""

    SILENT = -1
    IDS = 0
    RESULT = 1
    REQUEST = 2


class Place(NamedTuple):
    """A record in the log."""

    topic: str
    partition: int
    offset: int


NOWHERE = Place("", 0, NO_PLACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is known of a request: all of it, or what its outcome repeats (`detail`).

    `redriven_offset`: the place in the dead letters that this record was sent again from. `seen_us`: the log's time of the record.
    """

    tenant: str
    id: str
    detail: Detail
    submitted_us: int
    seen_us: int
    key: str = ""
    batch_id: str | None = None
    lane: str = "online"
    uri: str = ""
    sha256: str | None = None
    model: str | None = None
    parameters: str = "{}"
    attributes: str = "{}"
    source: Place = NOWHERE
    redriven_offset: int = NOT_REDRIVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A result. `detections` is the JSON text that clients get, `scores` the best score of each label in it.

    `silent`: it is kept, but does not become the image's outcome.
    """

    submission: Submission
    id: str
    completed_us: int
    model_name: str
    model_version: str
    model_digest: str
    backend: str
    precision: str
    device: str
    width: int
    height: int
    wait_ms: float
    fetch_ms: float
    decode_ms: float
    inference_ms: float
    detections: str
    scores: Mapping[str, float]
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A dead letter of an image; `offset` is its own place, in the one partition in which all letters of an image are."""

    submission: Submission
    offset: int
    code: str
    message: str
    stage: str
    attempts: int
    failed_us: int


def complaint(**names: str | None) -> str | None:
    """Why something with these names (`tenant`, `id`, `key`, `batch_id`) cannot be kept, or None.

    What is searched must fit an index, and not every database takes a NUL.
    """
    for name, value in names.items():
        if value and ("\0" in value or len(value.encode()) > _LONGEST[name]):
            return f"its {name} is longer than {_LONGEST[name]} bytes, or holds a NUL"
    return None if names.get("id", "-") else "it has no id"


def clean(text: str) -> str:
    """A text that any database takes."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def searchable(text: str) -> str:
    """What somebody asks for, as a text that any database takes; what cannot be there is not found."""
    return clean(text.encode(errors="replace").decode())


def short(text: str) -> str:
    """A text as it is searched, a label or a model's name, say: cut where it would not fit an index."""
    return clean(text[:_LONGEST_SHORT])


def attributes_text(pairs: Sequence[tuple[str, str]] | Mapping[str, str]) -> str:
    """Attributes as JSON."""
    return json.dumps(dict(pairs), separators=(",", ":")) if pairs else "{}"
