"""The records that travel on topics. Field names and order follow `avro/*.avsc`, which is the wire's truth."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

EPOCH = datetime.fromtimestamp(0, UTC)


class Lane(StrEnum):
    """Which queue an image waits in: people wait for `online`, nobody waits for `bulk`."""

    ONLINE = "online"
    BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectParameters:
    """What a request asks of the detector; None leaves the worker's default.

    `confidence` and `iou` are in 0..1; `classes` are class ids of the model, None means all.
    """

    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """A reference to one image that wants detecting. Image bytes never travel on a topic.

    `key` orders: records of one key keep their order through the pipeline (a camera, say); empty means the image's own id.
    `sha256` (lower-case hex) is verified against the fetched bytes if given. `deadline` is the moment after which nobody wants
    the result. `attributes` are copied to the result. `replay_id`: the replay that sent it again; `into`: the topic of its result where
    that is not the usual one; `silent`: nobody is told of the result, and it does not become the image's outcome.
    """

    id: str
    uri: str
    tenant: str = "default"
    key: str = ""
    batch_id: str | None = None
    lane: Lane = Lane.ONLINE
    model: str | None = None
    parameters: DetectParameters = field(default_factory=DetectParameters)
    sha256: str | None = None
    submitted_at: datetime = EPOCH
    deadline: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    replay_id: str | None = None
    into: str | None = None
    silent: bool = False

    @property
    def ordering_key(self) -> str:
        """The Kafka record key: `key`, else `id`."""
        return self.key or self.id


def new_image_id() -> str:
    """A fresh random image id (UUID 4, 32 hex digits)."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One box: corners in pixels of the oriented frame (origin top left, x right, y down), score in 0..1."""

    label: str
    class_id: int
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds an image spent in each stage. `wait_ms`: from submission until a worker took it. `inference_ms` is its batch's."""

    wait_ms: float = 0.0
    fetch_ms: float = 0.0
    decode_ms: float = 0.0
    inference_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionResult:
    """What one model found in one image.

    `id` is a function of tenant, image id, model digest, parameters, the version of the registry and the replay, if any: the same work
    always has the same id, so that consumers de-duplicate on it. `source_*` name the record of the images topic. Width and height are of
    the oriented frame. `replay_id` and `silent` are the reference's. `rollout` is the id of the rollout that chose the model, `arm` a
    `schemas.rollouts.Arm`.
    """

    id: str
    image_id: str
    uri: str
    tenant: str = "default"
    key: str = ""
    batch_id: str | None = None
    lane: Lane = Lane.ONLINE
    model_name: str = ""
    model_version: str = ""
    model_digest: str = ""
    backend: str = ""
    precision: str = ""
    device: str = ""
    batch_size: int = 0
    image_width: int = 0
    image_height: int = 0
    detections: tuple[Detection, ...] = ()
    source_topic: str = ""
    source_partition: int = 0
    source_offset: int = 0
    submitted_at: datetime = EPOCH
    completed_at: datetime = EPOCH
    timings: Timings = field(default_factory=Timings)
    attributes: Mapping[str, str] = field(default_factory=dict)
    replay_id: str | None = None
    silent: bool = False
    rollout: str | None = None
    arm: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One Kafka record header."""

    name: str
    value: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that could not be processed: its original bytes, key and headers, and why.

    `code` is a `schemas.errors.Reason`; `stage` is where it failed (`decode`, `fetch`, `detect`, `parquet` ...); `attempts` counts tries.
    `image_id`, `tenant` and `batch_id` are empty or None where the record could not be read.
    `source_*` name the record as it was first published, also after retries.
    """

    code: str
    message: str
    stage: str
    attempts: int = 1
    image_id: str = ""
    tenant: str = ""
    batch_id: str | None = None
    value: bytes | None = None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    source_topic: str = ""
    source_partition: int = 0
    source_offset: int = 0
    source_timestamp_ms: int = 0
    consumer_group: str = ""
    service_version: str = ""
    first_failed_at: datetime = EPOCH
    failed_at: datetime = EPOCH
