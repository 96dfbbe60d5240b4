"""The detection step: references in, exactly one outcome each - a result, a retry or a dead letter."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError

from detectors.base import Image
from detectors.images import ImageRequest
from producers.publisher import Publisher
from schemas import failpoints
from schemas.errors import BusyError, FatalError, Reason, RejectedError
from schemas.records import DetectParameters, ImageRef
from streams import metrics
from streams.failures import Failed, FailureRouter
from streams.inference import infer_share
from streams.lanes import Part
from streams.models import Models
from streams.results import results, results_in_order
from streams.sending import ResultSender
from streams.work import Deliveries, Failure, Seat, Share, Work

log = logging.getLogger(__name__)

_DEFAULTS = DetectParameters()

FAILPOINTS = (
    "worker.gathered",
    "worker.prepared",
    "worker.inferred",
    "worker.sent",
    "worker.confirmed",
    "worker.committing",
    "worker.committed",
)
"""Every point of a record's way at which a test lets the worker die, in order."""


class Images(Protocol):
    """What the step asks of the image loader."""

    async def load(self, requests: Sequence[ImageRequest]) -> Sequence[Image | RejectedError | BusyError]:
        """One outcome per request, in order; one bad image costs no other."""


class DetectStep:
    """Carries batches through decoding, loading, detection and publishing.

    `settled(work)` is called from the publisher's thread when every outcome of a batch is confirmed, `failed(error)` when one is not.
    """

    def __init__(
        self,
        models: Models,
        images: Images,
        publisher: Publisher,
        router: FailureRouter,
        settled: Callable[[Work], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._models = models
        self._images = images
        self._publisher = publisher
        self._router = router
        self._sender = ResultSender(publisher)
        self._settled = settled
        self._failed = failed

    async def prepare(self, parts: list[Part]) -> Work:
        """Decode the references and load their images. While the registry is down it waits: nothing is dead-lettered for that."""
        failpoints.reach("worker.gathered")
        taken_at_us = time.time_ns() // 1000
        while True:
            try:
                work = await asyncio.to_thread(self._decode, parts, taken_at_us)
                break
            except BusyError as busy:
                log.warning("cannot decode yet: %s", busy)
                await asyncio.sleep(max(busy.retry_after_s, 0.5))
        await self._load(work)
        work.split()
        failpoints.reach("worker.prepared")
        return work

    def infer(self, work: Work) -> Work:
        """Detect in all images, version by version."""
        for share in work.shares:
            for at, error in infer_share(share).items():
                what = RejectedError(Reason.DETECTOR_FAILED, f"{type(error).__name__}: {error}")
                work.failures.append(Failure(at, what, "detect"))
        work.shares = [share for share in work.shares if len(share)]
        failpoints.reach("worker.inferred")
        return work

    def publish(self, work: Work) -> None:
        """Send every outcome. Results of one key leave in the order of their references.

        A batch that a rebalance gave up meanwhile is dropped: its records are read again, and sending it now would overtake their order.
        """
        if any(part.run.claim.forgotten for part in work.parts):
            return
        work.plan_shadows()
        shadowed = sum(map(len, work.shadows))
        deliveries = Deliveries(len(work.records) + shadowed, lambda: self._settled(work), self._unconfirmed)
        work.deliveries = deliveries if shadowed else None
        report = deliveries.report
        if work.shares:
            batch = results_in_order(work, time.time_ns() // 1000)
            too_large = self._sender.send(batch, work.shares, work.records, report)
            work.failures += too_large
            metrics.PROCESSED.labels("detect", "result").inc(batch.num_rows - len(too_large))
        for failure in work.failures:
            self._router.send(Failed(work.records[failure.at], failure.error, failure.stage), report)
            metrics.PROCESSED.labels(failure.stage, failure.error.reason).inc()
        metrics.LAST_PROCESSED.set_to_current_time()
        failpoints.reach("worker.sent")

    def shadow(self, work: Work) -> None:
        """Let other versions see what users have their results of; on a device thread. What goes wrong is counted, and costs nobody."""
        deliveries, work.deliveries = work.deliveries, None  # no longer than needed: each of the two knows the other
        assert deliveries is not None
        for share in work.shadows:
            asked, lost = len(share), 0
            if batch := self._see(share, work):
                lost = len(self._sender.send_shadow(batch, share, work.records, deliveries.report))
            failed = asked - len(share) + lost if batch else asked
            metrics.SHADOWS.labels("result").inc(asked - failed)
            metrics.SHADOWS.labels("failed").inc(failed)
            deliveries.spare(failed)

    @staticmethod
    def _see(share: Share, work: Work) -> pa.RecordBatch | None:
        try:
            infer_share(share)
            return results(share, work, time.time_ns() // 1000) if len(share) else None
        except Exception:
            log.exception("%s failed as a shadow", share.loaded.reference)
            return None

    def _decode(self, parts: Sequence[Part], taken_at_us: int) -> Work:
        records = parts[0].records if len(parts) == 1 else [record for part in parts for record in part.records]
        decoded = self._publisher.codec.decode_run([record.value for record in records], ImageRef)
        failures = [Failure(at, error, "decode") for at, error in decoded.rejected]
        work = Work(parts, records, taken_at_us, decoded.batch, decoded.index, failures)
        self._refuse(work)
        self._seat(work)
        work.parameters = _parameters(work.refs.column("parameters"))
        return work

    def _refuse(self, work: Work) -> None:
        """Take out what needs no image to fail: empty ids, passed deadlines."""
        refs = work.refs
        empty = pc.or_(pc.equal(refs.column("id"), ""), pc.equal(refs.column("uri"), ""))
        _fail(work, empty, Reason.RECORD_INVALID, "a reference needs an id and a uri")
        if work.refs.column("deadline").null_count < work.refs.num_rows:
            late = pc.less(work.refs.column("deadline").cast(pa.int64()), work.taken_at_us)
            _fail(work, late, Reason.DEADLINE_EXPIRED, "the deadline had passed when a worker took it")

    def _seat(self, work: Work) -> None:
        """Find each image its model; take out those that ask for one that is not to be had."""
        seated = self._models.seat(work.refs)
        if not isinstance(seated, list):
            work.loaded = seated
            return
        work.failures += [
            Failure(int(work.index[row]), seat, "decode")
            for row, seat in enumerate(seated)
            if not isinstance(seat, Seat)
        ]
        work.keep(np.array([isinstance(seat, Seat) for seat in seated], bool))
        work.seats = [seat for seat in seated if isinstance(seat, Seat)]

    async def _load(self, work: Work) -> None:
        uris, sums = work.refs.column("uri").to_pylist(), work.refs.column("sha256").to_pylist()
        outcomes = await self._images.load(list(map(ImageRequest, uris, sums)))
        work.images = outcomes  # type: ignore[assignment]  # failures are taken out next
        good = [isinstance(outcome, Image) for outcome in outcomes]
        if not all(good):
            work.failures += [
                Failure(int(work.index[row]), outcome, "fetch")
                for row, outcome in enumerate(outcomes)
                if not isinstance(outcome, Image)
            ]
            _keep(work, np.array(good))

    def _unconfirmed(self, error: KafkaError) -> None:
        self._failed(FatalError(f"an outcome was not confirmed: {error}"))


def _fail(work: Work, mask: pa.BooleanArray, reason: Reason, message: str) -> None:
    """Enter the masked rows as failures and drop them."""
    bad = mask.fill_null(False).to_numpy(zero_copy_only=False)
    if bad.any():
        work.failures += [Failure(int(at), RejectedError(reason, message), "decode") for at in work.index[bad]]
        work.keep(~bad)


def _keep(work: Work, mask: "np.typing.NDArray[np.bool_]") -> None:
    work.keep(mask)
    work.images = [image for image, keep in zip(work.images, mask, strict=True) if keep]
    work.parameters = [parameters for parameters, keep in zip(work.parameters, mask, strict=True) if keep]


def _parameters(column: pa.StructArray) -> list[DetectParameters]:
    """Requests without wishes of their own share one object."""
    if all(child.null_count == len(column) for child in column.flatten()):
        return [_DEFAULTS] * len(column)
    return [
        DetectParameters(**row | {"classes": tuple(row["classes"]) if row["classes"] is not None else None})
        for row in column.to_pylist()
    ]
