"""What the store's tests say happened: records of the log, by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.control import Batch, Deletion, WorkerProgress
from schemas.moments import to_us
from sinks.base import Extent, Partition
from sinks.store import SqlResultStore
from sinks.store_base import ImageQuery
from sinks.store_fold import Advance, Changes
from sinks.store_records import NOWHERE, Completion, Detail, Loss, Place, Submission
from sinks.store_writes import StoreWriter
from sinks.stored import StoredImage

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
START_US = to_us(START)
ONLINE = Partition("images.online", 0)
OTHER = Partition("detections", 0)
S = 1_000_000  # microseconds
ACME = ImageQuery(tenant="acme")


def submission(image_id: str = "i1", offset: int = 0, **changes: Any) -> Submission:
    """A request for an image, submitted `offset` seconds after the start at that offset of `images.online`."""
    values: dict[str, Any] = {
        "tenant": "acme",
        "id": image_id,
        "detail": Detail.REQUEST,
        "submitted_us": START_US + offset * S,
        "seen_us": START_US + offset * S,
        "key": "camera-1",
        "uri": f"file:///{image_id}.jpg",
        "sha256": "ab" * 32,
        "parameters": '{"confidence":0.3}',
        "attributes": '{"aisle":"7"}',
        "source": Place(ONLINE.topic, ONLINE.index, offset),
    }
    return Submission(**{**values, **changes})


def completion(image_id: str = "i1", offset: int = 0, after_s: float = 2.0, **changes: Any) -> Completion:
    """A result for it, `after_s` after it was submitted. Names of a submission go into that."""
    said = {
        name: changes.pop(name)
        for name in list(changes)
        if name in {"tenant", "key", "batch_id", "submitted_us", "source"}
    }
    image = submission(image_id, offset, detail=Detail.RESULT, sha256=None, parameters="{}", **said)
    values: dict[str, Any] = {
        "submission": image,
        "id": f"r-{image_id}",
        "completed_us": image.submitted_us + round(after_s * S),
        "model_name": "codes",
        "model_version": "1",
        "model_digest": "d1",
        "backend": "openvino",
        "precision": "int8",
        "device": "cpu",
        "width": 640,
        "height": 480,
        "wait_ms": 1.0,
        "fetch_ms": 2.0,
        "decode_ms": 3.0,
        "inference_ms": 4.0,
        "detections": '[{"label":"dog","class_id":16,"score":0.875,"box":[1.0,2.0,3.0,4.0]}]',
        "scores": {"dog": 0.875},
    }
    return Completion(**{**values, **changes})


def silently(image_id: str = "i1", offset: int = 0, after_s: float = 2.0, **changes: Any) -> Completion:
    """A result that a silent replay made of it."""
    made = completion(image_id, offset, after_s, **changes)
    return replace(made, silent=True, submission=replace(made.submission, detail=Detail.SILENT, source=NOWHERE))


def loss(image_id: str = "i1", offset: int = 0, at: int = 0, **changes: Any) -> Loss:
    """A dead letter for it, at offset `at` of the dead letters."""
    said = {
        name: changes.pop(name) for name in list(changes) if name in {"tenant", "batch_id", "source", "redriven_offset"}
    }
    image = submission(image_id, offset, **said)
    return Loss(
        submission=image,
        offset=at,
        code="image_corrupt",
        message="no JPEG",
        stage="decode",
        attempts=1 + at,
        failed_us=image.submitted_us + 3 * S + at,
    )


def redriven(image_id: str = "i1", offset: int = 0, letter: int = 0, at: int = 100) -> Submission:
    """The request, sent again from the dead letter at offset `letter`; it lies at `at`."""
    return submission(image_id, offset, redriven_offset=letter, source=Place(ONLINE.topic, ONLINE.index, at))


def batch(batch_id: str = "b1", images: int | None = None, **changes: Any) -> Batch:
    """A batch, closed where its size is known."""
    closed = None if images is None else START + timedelta(seconds=1)
    values: dict[str, Any] = {
        "id": batch_id,
        "tenant": "acme",
        "images": images,
        "created_at": START,
        "closed_at": closed,
    }
    return Batch(**{**values, **changes})


def deletion(image_id: str = "i1", tenant: str = "acme") -> Deletion:
    """A deletion, an hour after the start."""
    return Deletion(image_id=image_id, tenant=tenant, deleted_at=START + timedelta(hours=1))


def taken(offset: int) -> WorkerProgress:
    """Workers have taken `images.online` up to here."""
    return WorkerProgress(topic=ONLINE.topic, partition=ONLINE.index, taken=offset, group="g", at=START)


class Log:
    """Writes records to a store as a projection would, at offsets of its own."""

    def __init__(self, writer: StoreWriter) -> None:
        self.writer = writer
        self.at: dict[Partition, int] = {}

    def write(self, *records: Any, partition: Partition = OTHER, topic_id: str = "t1") -> None:
        """All records in one transaction."""
        if partition not in self.at:
            self.at[partition] = self.writer.open(partition, Extent(topic_id, 0, 1 << 40))
        before = self.at[partition]
        step = Advance(partition, before, before + len(records), START_US)
        self.writer.write(changes(*records, advances=(step,)))
        self.at[partition] = step.after


def changes(*records: Any, advances: tuple[Advance, ...] = ()) -> Changes:
    """Records sorted by kind."""
    found = Changes(advances=advances)
    lists: Mapping[type, list[Any]] = {
        Submission: found.submissions,
        Completion: found.completions,
        Loss: found.losses,
        Batch: found.batches,
        Deletion: found.deletions,
        WorkerProgress: found.taken,
    }
    for record in records:
        lists[type(record)].append(record)
    return found


@dataclass
class Clock:
    """What the store takes the time from."""

    moment: datetime = START

    def us(self) -> int:
        return to_us(self.moment)


async def image(store: SqlResultStore, image_id: str = "i1", model: str | None = None) -> StoredImage:
    """An image of acme's that is there."""
    found = await store.image("acme", image_id, model)
    assert isinstance(found, StoredImage)
    return found


async def ids(store: SqlResultStore, query: ImageQuery = ACME, **changed: Any) -> list[str]:
    """Ids of all pages."""
    found: list[str] = []
    query = replace(query, **changed)
    while True:
        page = await store.images(query)
        assert len(page.items) <= query.limit
        found += [one.id for one in page.items]
        if page.next is None:
            return found
        query = replace(query, cursor=page.next)
