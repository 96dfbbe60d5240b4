"""One image from what a caller sent or named to a record that is on its way to Kafka."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from producers import metrics
from producers.confirming import Confirmation, Confirming
from producers.gateway_policy import GatewayPolicy
from producers.idempotency import KeyedIds, Memory, Past, is_same
from producers.options import Options, Reference
from producers.scan import Scanner
from producers.spool import Received, Spool
from producers.upload_policy import UploadPolicy
from producers.upload_store import OwnUpload, UploadStore, address
from producers.uri_rules import check_uri
from schemas.errors import Reason, RejectedError
from schemas.problems import ProblemError
from schemas.records import ImageRef, new_image_id

MISMATCH = "idempotency_mismatch"
_STATUS = {Reason.IMAGE_TYPE_UNSUPPORTED: 415, Reason.IMAGE_TOO_LARGE: 413}


@dataclass(slots=True, kw_only=True)
class Desk:
    """What all submissions of a gateway share. `in_hand`: images that are being received or stored now.

    `callbacks`: the schemes of URLs that somebody calls back; a callback that would never be called is refused.
    """

    policy: GatewayPolicy
    upload_policy: UploadPolicy
    uploads: UploadStore
    scanner: Scanner
    kafka: Confirming
    memory: Memory
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    callbacks: frozenset[str] = frozenset({"https"})
    in_hand: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Work that goes on when its request is gone; the gateway waits for it before it ends."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def open_spool(self) -> "Spool":
        """For one more image. Raises ProblemError: 503 `overloaded` where too many are in hand."""
        if self.in_hand >= self.policy.in_hand:
            raise ProblemError(503, "overloaded", "too many images are being received", 1)
        self.in_hand += 1
        return Spool(self.upload_policy, self._put_down)

    def _put_down(self) -> None:
        self.in_hand -= 1


@dataclass(slots=True)
class Entry:
    """What became of an image: it was sent, with a `confirmation` to come; or it was known from before; or there is a `problem`."""

    ref: ImageRef | None = None
    confirmation: Confirmation | None = None
    known: bool = False
    status: str = "queued"
    problem: ProblemError | None = None


@dataclass(frozen=True, slots=True)
class Taker:
    """Takes the images of one request. `keyed`: the ids that its Idempotency-Key means, None without one."""

    desk: Desk
    tenant: str
    keyed: KeyedIds | None

    async def file(self, spool: Spool, options: Options, index: int, batch_id: str | None) -> Entry:
        """A file that has come whole: stored, then sent. Closes the spool.

        Raises RejectedError or ProblemError where it cannot be taken, OSError where the disk is full.
        """
        with spool:
            image = await spool.finish()
            path = address(self.tenant, image.sha256, image.checked.kind)
            ref = self._ref(self.desk.uploads.uri(path), image.sha256, options, index, batch_id)
            if known := await self._known(ref, index):
                return known
            await self.store(path, image)
            return self._send(ref)

    async def reference(self, reference: Reference, index: int, batch_id: str | None) -> Entry:
        """An image that is only named: sent. Raises like `file`."""
        uri, sha256 = reference.uri, reference.sha256
        if own := self.desk.uploads.own(self.tenant, uri):
            sha256 = await self._inspect(own, sha256)
        else:
            check_uri(uri, self.desk.policy.uri_prefixes, self.desk.uploads.url)
        ref = self._ref(uri, sha256, reference.options, index, batch_id)
        return await self._known(ref, index) or self._send(ref)

    async def store(self, path: str, image: Received) -> None:
        """Scan and keep an image. Raises ProblemError."""
        await self.desk.scanner.scan(image.content)
        await self.desk.uploads.put(path, image)
        metrics.UPLOADED_BYTES.inc(image.size)

    async def _inspect(self, own: OwnUpload, wanted: str | None) -> str:
        """The hash of an upload.

        What the client wrote by itself is judged here, like any file; whoever writes there later is found out by the worker, which
        compares the hash.
        """
        if own.sha256 is None:
            found = await self._judge(own)
        elif await self.desk.uploads.exists(own):
            found = own.sha256
        else:
            raise _no_upload()
        if wanted not in {None, found}:
            raise RejectedError(Reason.IMAGE_HASH_MISMATCH, "the upload does not have this sha256")
        return found

    async def _judge(self, own: OwnUpload) -> str:
        with self.desk.open_spool() as spool:
            async for piece in self.desk.uploads.read(own):
                await spool.write(piece)
            if not spool.size:
                raise _no_upload()
            image = await spool.finish()
            await self.desk.scanner.scan(image.content)
            return image.sha256

    def _ref(self, uri: str, sha256: str | None, options: Options, index: int, batch_id: str | None) -> ImageRef:
        return ImageRef(
            id=self.keyed.image_id(index) if self.keyed else new_image_id(),
            uri=uri,
            tenant=self.tenant,
            key=options.key,
            batch_id=batch_id,
            lane=options.lane,
            model=options.model,
            parameters=options.parameters,
            sha256=sha256,
            submitted_at=self.desk.now(),
            attributes=options.attributes,
        )

    async def _known(self, ref: ImageRef, index: int) -> Entry | None:
        past = await self.keyed.past(index) if self.keyed else None
        if past is None:
            return None
        return _judge_past(past, ref)

    def _send(self, ref: ImageRef) -> Entry:
        return Entry(ref, self.desk.kafka.send(self.desk.kafka.topics.lane(ref.lane), ref.ordering_key, ref))


def problem_of(error: Exception) -> ProblemError:
    """What a caller is told of an image that cannot be taken, by what taking it raised."""
    if isinstance(error, RejectedError):
        return ProblemError(_STATUS.get(error.reason, 422), str(error.reason), str(error))
    if isinstance(error, ProblemError):
        return error
    return ProblemError(503, "storage_unavailable", "there is no room for the upload", 5)


def _judge_past(past: Past, ref: ImageRef) -> Entry:
    reason = getattr(past, "reason", None)
    if reason is not None:
        raise ProblemError(
            410, "deleted" if reason == "deleted" else "expired", f"this image was taken, and is {reason}"
        )
    if not is_same(past, ref):  # type: ignore[arg-type]  # it has no reason, so it is known
        raise ProblemError(422, MISMATCH, "this Idempotency-Key was used for another request")
    return Entry(ref, known=True, status=str(getattr(past, "status", "queued")))


def _no_upload() -> ProblemError:
    return ProblemError(422, "uri_forbidden", "there is no such upload of yours: put its bytes there first")
