"""The detection step: references in, exactly one outcome each - a result, a retry or a dead letter."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError

from detectors.base import Boxes, Detector, Image
from detectors.images import ImageRequest
from producers.publisher import OnDelivery, Publisher
from schemas import failpoints
from schemas.errors import BusyError, FatalError, Reason, RejectedError
from schemas.records import DetectionResult, DetectParameters, ImageRef
from streams import metrics
from streams.failures import Failed, FailureRouter
from streams.lanes import Part
from streams.results import results
from streams.work import Deliveries, Failure, Work

log = logging.getLogger(__name__)

_DEFAULTS = DetectParameters()
_BLANK = Image(np.full((64, 64, 3), 127, np.uint8))

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
        detector: Detector,
        images: Images,
        publisher: Publisher,
        router: FailureRouter,
        settled: Callable[[Work], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._detector = detector
        self._images = images
        self._publisher = publisher
        self._router = router
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
        failpoints.reach("worker.prepared")
        return work

    def infer(self, work: Work) -> Work:
        """Detect in all images; where the detector raises, halve the batch until the image at fault is alone."""
        started = time.perf_counter()
        boxes, bad = self._detect(work.images, work.parameters, 0) if work.images else (Boxes.concatenate([]), {})
        work.inference_ms = (time.perf_counter() - started) * 1000
        work.boxes = boxes
        if bad and len(bad) == len(work.images):
            self._prove_alive()
        if bad:
            work.failures += [
                Failure(
                    int(work.index[row]),
                    RejectedError(Reason.DETECTOR_FAILED, f"{type(error).__name__}: {error}"),
                    "detect",
                )
                for row, error in bad.items()
            ]
            _keep(work, np.array([row not in bad for row in range(len(work.images))]))
        failpoints.reach("worker.inferred")
        return work

    def publish(self, work: Work) -> None:
        """Send every outcome. Results of one key leave in the order of their references.

        A batch that a rebalance gave up meanwhile is dropped: its records are read again, and sending it now would overtake their order.
        """
        if any(part.run.claim.forgotten for part in work.parts):
            return
        report = Deliveries(len(work.records), lambda: self._settled(work), self._unconfirmed).report
        if work.refs.num_rows:
            self._publish_results(work, report)
        for failure in work.failures:
            self._router.send(Failed(work.records[failure.at], failure.error, failure.stage), report)
            metrics.PROCESSED.labels(failure.stage, failure.error.reason).inc()
        metrics.PROCESSED.labels("detect", "result").inc(work.refs.num_rows)
        metrics.LAST_PROCESSED.set_to_current_time()
        failpoints.reach("worker.sent")

    def _decode(self, parts: Sequence[Part], taken_at_us: int) -> Work:
        records = parts[0].records if len(parts) == 1 else [record for part in parts for record in part.records]
        decoded = self._publisher.codec.decode_run([record.value for record in records], ImageRef)
        failures = [Failure(at, error, "decode") for at, error in decoded.rejected]
        work = Work(parts, records, taken_at_us, decoded.batch, decoded.index, failures)
        self._refuse(work)
        work.parameters = _parameters(work.refs.column("parameters"))
        return work

    def _refuse(self, work: Work) -> None:
        """Take out what needs no image to fail: empty ids, passed deadlines, models that do not run here."""
        refs = work.refs
        empty = pc.or_(pc.equal(refs.column("id"), ""), pc.equal(refs.column("uri"), ""))
        _fail(work, empty, Reason.RECORD_INVALID, "a reference needs an id and a uri")
        if work.refs.column("deadline").null_count < work.refs.num_rows:
            late = pc.less(work.refs.column("deadline").cast(pa.int64()), work.taken_at_us)
            _fail(work, late, Reason.DEADLINE_EXPIRED, "the deadline had passed when a worker took it")
        if work.refs.column("model").null_count < work.refs.num_rows:
            model = self._detector.model
            known = pc.is_in(work.refs.column("model"), pa.array([model.name, f"{model.name}@{model.version}"]))
            _fail(
                work,
                pc.and_(pc.is_valid(work.refs.column("model")), pc.invert(known)),
                Reason.MODEL_UNKNOWN,
                f"this worker runs {model.name}@{model.version}",
            )

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

    def _detect(
        self, images: Sequence[Image], parameters: Sequence[DetectParameters], first: int
    ) -> tuple[Boxes, dict[int, Exception]]:
        """Boxes of the images that could be done, and what the others raised, by row."""
        try:
            boxes = self._detector.detect(images, parameters)
            boxes.check(len(images), len(self._detector.model.labels))
        except FatalError:
            raise
        except Exception as error:  # noqa: BLE001 - a backend raises what it likes; the image at fault is found by halving
            if len(images) == 1:
                return Boxes.concatenate([]), {first: error}
        else:
            return boxes, {}
        half = len(images) // 2
        left, bad_left = self._detect(images[:half], parameters[:half], first)
        right, bad_right = self._detect(images[half:], parameters[half:], first + half)
        return Boxes.concatenate([left, right]), bad_left | bad_right

    def _prove_alive(self) -> None:
        """Every image of a batch failed: find out whether they are to blame, before a sick device dead-letters the whole backlog."""
        try:
            self._detector.detect([_BLANK], [_DEFAULTS])
        except Exception as error:
            raise FatalError(f"the detector fails on a blank image, too: {error!r}") from error

    def _publish_results(self, work: Work, report: OnDelivery) -> None:
        batch = results(work, self._detector.model, time.time_ns() // 1000)
        values = self._publisher.codec.encode_run(batch, DetectionResult)
        keys = [work.records[at].key for at in work.index.tolist()]
        if None in keys:
            keys = [_ordering_key(work, row) if key is None else key for row, key in enumerate(keys)]
        sizes = [len(key) + len(value) for key, value in zip(keys, values, strict=True)]
        if max(sizes) > self._publisher.max_record_bytes:
            keys, values = self._without_oversized(work, keys, values)
        self._publisher.send_run(self._publisher.topics.detections, keys, values, report)

    def _without_oversized(self, work: Work, keys: list[bytes], values: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Results that no topic takes become failures of their images; the others go on."""
        most = self._publisher.max_record_bytes
        fits = [len(key) + len(value) <= most for key, value in zip(keys, values, strict=True)]
        work.failures += [
            Failure(int(at), RejectedError(Reason.RECORD_TOO_LARGE, f"a result of {len(value)} bytes"), "publish")
            for at, value, fit in zip(work.index, values, fits, strict=True)
            if not fit
        ]
        return list(compress(keys, fits)), list(compress(values, fits))

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


def _ordering_key(work: Work, row: int) -> bytes:
    """The key of a reference that its producer wrote without one."""
    key: str = work.refs.column("key")[row].as_py() or work.refs.column("id")[row].as_py()
    return key.encode()
