"""What readers ask of the result store. What they get stands in `sinks.stored`, webhook deliveries in `sinks.deliveries`.

Every question about images carries the tenant: an image of another tenant is as unknown as one that never was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from schemas.errors import SightstreamError
from sinks.base import Partition
from sinks.stored import Gone, ImageStatus, StoredBatch, StoredImage

Item = TypeVar("Item")

PAGE_LIMIT = 200
"""The most that a page holds."""


class InvalidCursorError(SightstreamError):
    """A cursor that this store did not hand out."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items, in order. `next`: hand it back as `cursor` for those after them; None where there are no more."""

    items: tuple[Item, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuery:
    """Which images of a tenant, newest submission first. What is empty or None does not restrict.

    `labels` and `min_score` ask for a detection with one of these labels and at least this score in the newest result. `keys`: cameras.
    `since` counts, `until` does not any more (time of submission). `model`: `NAME` of the newest result; or `NAME@VERSION`, which has a
    result of the image, be it silent, and then that is the one that is shown.
    """

    tenant: str
    labels: tuple[str, ...] = ()
    min_score: float = 0.0
    keys: tuple[str, ...] = ()
    statuses: tuple[ImageStatus, ...] = ()
    batch_id: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSeen:
    """A model of which there are results: when its first and its newest one were made."""

    name: str
    version: str
    digest: str
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Over all tenants: how many images a second got their first result, and how long after their submission (None without any)."""

    throughput_per_s: float
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class ResultStore(Protocol):
    """Reads the projection of the log. Any call may raise `BusyError` while the database does not answer: try again.

    Many may be in flight at once. What is read is as new as `positions()` says.
    """

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""

    async def image(self, tenant: str, image_id: str, model: str | None = None) -> StoredImage | Gone | None:
        """One image; None where the store has not heard of it (so far: see `sinks.store_fresh`).

        With a `model` (`NAME@VERSION`) its result is the newest of this version, be it silent; None where there is none.
        """

    async def images_by_id(self, tenant: str, image_ids: Sequence[str]) -> Mapping[str, StoredImage | Gone]:
        """Those of the images (at most 1,000) that are known."""

    async def images(self, query: ImageQuery) -> Page[StoredImage]:
        """Images that the query asks for. Raises InvalidCursorError."""

    async def batch(self, tenant: str, batch_id: str) -> StoredBatch | None:
        """A batch with its counts; also one of which only images are known."""

    async def batch_images(
        self, tenant: str, batch_id: str, limit: int = 50, cursor: str | None = None, model: str | None = None
    ) -> Page[StoredImage]:
        """Images of a batch, oldest submission first: a page does not change because images arrive. Raises InvalidCursorError.

        With a `model` (`NAME@VERSION`) those that it has a result of, which is then the one that is shown.
        """

    async def positions(self) -> Mapping[Partition, int]:
        """Partition -> the offset after the last record that is in the store. Partitions never read are missing."""

    async def caught_up(self, ends: Mapping[Partition, int]) -> bool:
        """Whether every record below these ends (of partitions that the store follows; others are ignored) is in the store."""

    async def taken(self) -> Mapping[Partition, int]:
        """Partition of an images topic -> the next offset that no worker has taken."""

    async def models(self) -> Sequence[ModelSeen]:
        """Models with results in the store, the one seen last first."""

    async def pace(self, window_s: float = 60.0) -> Pace:
        """Throughput and latency over the last `window_s` (at most an hour; to the next 10 s)."""

    async def behind_s(self) -> float | None:
        """Seconds since the projection last said that it is at work, 0 while it is at the end of the log; None before it first ran."""


class LogEnds(Protocol):
    """Knows how far the log goes: `streams.log_ends`."""

    async def ends(self) -> Mapping[Partition, int]:
        """End of each partition that the store follows, as of now or later. Raises BusyError while the brokers do not answer."""
