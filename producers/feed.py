"""Drives a stream of references onto Kafka at a rate, and knows at every moment how much of it is confirmed."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from producers import metrics
from producers.journal import Progress
from producers.publisher import Receipt
from producers.rate import TokenBucket
from schemas import failpoints
from schemas.errors import ConfigurationError, DeliveryError, FatalError, RejectedError
from schemas.records import ImageRef

log = logging.getLogger(__name__)


class Publishes(Protocol):
    """The one thing that a feed asks of `producers.publisher.Publisher`."""

    def publish(self, ref: ImageRef) -> "Future[Receipt]":
        """Send a reference; blocks while there is no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPolicy:
    """How a feed goes about it.

    `rate`: images a second, None as fast as they are taken. `window`: the most images between the first unconfirmed one
    and the newest, which bounds memory. `save_every_s`: how much a kill makes the next run send again.
    """

    rate: float | None = None
    window: int = 50_000
    save_every_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a feed did.

    `skipped` images were done with in earlier runs, `confirmed` by this one. `rejected` are the ids of images that can never
    be written, `failed` of those that Kafka did not confirm (they may have been written all the same); `error` says why.
    """

    skipped: int
    confirmed: int
    rejected: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    error: str = ""


class Feed:
    """Publishes a batch, in order, from where `progress` says that the last run was confirmed.

    `save` keeps the progress (a `Journal`'s); `watch` is called after each step with the images confirmed in all.
    Stops at the first failed delivery, waits for what is on its way, and says what was not confirmed; a later run sends that
    again under the same ids. A reference that can never be written (`RejectedError`) is counted, and the feed goes on.
    """

    def __init__(
        self,
        publisher: Publishes,
        progress: Progress,
        policy: FeedPolicy = FeedPolicy(),
        save: Callable[[Progress], object] = lambda _: None,
        watch: Callable[[int], object] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._progress = progress
        self._policy = policy
        self._save = save
        self._watch = watch
        self._now = now
        self._saved_at = now()
        self._sent: deque[tuple[str, Future[Receipt]]] = deque()
        self._confirmed = 0
        self._failed: list[str] = []
        self._error = ""

    def run(self, refs: Iterator[ImageRef], bucket: TokenBucket | None = None) -> Outcome:
        """Publish everything that is not confirmed yet, and return when nothing is on its way any more.

        `bucket` replaces the one that the policy's rate makes. Raises `ConfigurationError` if the source does not begin with
        what was confirmed, and whatever `refs` raises; the progress is saved in each case.
        """
        before = self._progress
        self._skip(refs)
        if bucket is None and self._policy.rate is not None:
            bucket = TokenBucket(self._policy.rate)
        try:
            self._send_all(refs, bucket)
        finally:
            self._settle(keep=0)
            self._save(self._progress)
        rejected = self._progress.rejected[len(before.rejected) :]
        return Outcome(before.confirmed, self._confirmed, rejected, tuple(self._failed), self._error)

    def _skip(self, refs: Iterator[ImageRef]) -> None:
        """Pass over what is confirmed, and check by the hash chain that it is the same as then."""
        seen = Progress(batch_id=self._progress.batch_id)
        while seen.confirmed < self._progress.confirmed:
            ref = next(refs, None)
            if ref is None:
                break
            seen = seen.advanced(ref.id)
        if (seen.confirmed, seen.digest) != (self._progress.confirmed, self._progress.digest):
            raise ConfigurationError(
                f"batch {seen.batch_id}: the source has changed since its first {self._progress.confirmed} images were "
                "published; publish it again without --resume (images keep their ids), or under another batch id"
            )

    def _send_all(self, refs: Iterator[ImageRef], bucket: TokenBucket | None) -> None:
        for ref in refs:
            self._settle(keep=self._policy.window)
            if self._failed:
                return
            if bucket is not None:
                bucket.take()
            self._sent.append((ref.id, self._publish(ref)))
            failpoints.reach("feed.published")

    def _publish(self, ref: ImageRef) -> "Future[Receipt]":
        try:
            return self._publisher.publish(ref)
        except (RejectedError, FatalError) as error:
            refused: Future[Receipt] = Future()
            refused.set_exception(error)
            return refused

    def _settle(self, keep: int) -> None:
        """Take what has its report off the head of the queue; wait for reports while more than `keep` are left."""
        while self._sent and (len(self._sent) > keep or self._sent[0][1].done()):
            self._conclude(*self._sent.popleft())
        metrics.FEED_UNCONFIRMED.set(len(self._sent))
        now = self._now()
        if now - self._saved_at >= self._policy.save_every_s:
            self._saved_at = now
            self._save(self._progress)
            failpoints.reach("feed.saved")

    def _conclude(self, image_id: str, future: "Future[Receipt]") -> None:
        error = future.exception()
        if error is None or isinstance(error, RejectedError):
            self._conclude_done(image_id, error)
        elif isinstance(error, DeliveryError | FatalError):
            metrics.FED.labels("failed").inc()
            self._failed.append(image_id)
            self._error = self._error or str(error)
        else:
            raise error

    def _conclude_done(self, image_id: str, error: RejectedError | None) -> None:
        metrics.FED.labels("confirmed" if error is None else "rejected").inc()
        if error is None:
            self._confirmed += 1
        else:
            log.error("image refused: %s", error, extra={"image_id": image_id, "code": error.reason.value})
        if not self._failed:
            self._progress = self._progress.advanced(image_id, rejected=error is not None)
            self._watch(self._progress.confirmed)
