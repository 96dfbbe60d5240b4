"""The same request twice is one: ids follow from the caller's key, and what is known of them tells a retry from a mistake."""

import asyncio
import hashlib
import logging
import re
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

from schemas.errors import BusyError
from schemas.problems import ProblemError
from schemas.records import DetectParameters, ImageRef, Lane

log = logging.getLogger(__name__)

_KEY = re.compile(r"[!-~]{1,255}")
_PAGE = 100
_LOOK_S = 2.0


class Known(Protocol):
    """An image as it was submitted, and where it stands: `sinks.stored.StoredImage`, or an `ImageRef`."""

    @property
    def uri(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str | None: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def lane(self) -> Lane: ...  # noqa: D102
    @property
    def batch_id(self) -> str | None: ...  # noqa: D102
    @property
    def model(self) -> str | None: ...  # noqa: D102
    @property
    def parameters(self) -> DetectParameters: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, str]: ...  # noqa: D102


class Forgotten(Protocol):
    """An image that was known: `sinks.stored.Gone`. `reason`: `deleted` or `expired`."""

    @property
    def reason(self) -> str: ...  # noqa: D102


class KnownBatch(Protocol):
    """A batch: `sinks.stored.StoredBatch`. `images` is None until it is closed."""

    @property
    def images(self) -> int | None: ...  # noqa: D102


Past: TypeAlias = Known | Forgotten


class KnownImages(Protocol):
    """What the past holds: `sinks.store_base.ResultStore`. It may be a little behind, and may raise BusyError."""

    async def images_by_id(self, tenant: str, image_ids: Sequence[str]) -> Mapping[str, Past]:
        """Those of the images that are known."""

    async def batch(self, tenant: str, batch_id: str) -> KnownBatch | None:
        """A batch, if it is known."""


class NothingKnown:
    """A past without memory: mistakes are not noticed, and retries do no harm all the same."""

    async def images_by_id(self, tenant: str, image_ids: Sequence[str]) -> Mapping[str, Past]:
        """None of them."""
        del tenant, image_ids
        return {}

    async def batch(self, tenant: str, batch_id: str) -> KnownBatch | None:
        """None."""


def derive_id(tenant: str, key: str, what: str) -> str:
    """The id that a key means, the same in every gateway and for ever: 32 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(f"{tenant}\n{key}\n{what}".encode(), digest_size=16).hexdigest()


def check_key(key: str | None) -> str | None:
    """An `Idempotency-Key`. Raises ProblemError: 400 `invalid_header`."""
    if key is not None and not _KEY.fullmatch(key):
        raise ProblemError(400, "invalid_header", "Idempotency-Key is 1 to 255 visible ASCII characters")
    return key


def is_same(known: Known, wanted: ImageRef) -> bool:
    """Whether it is a retry of what is known: the same image, asked the same about. An upload's hash is part of its URI."""
    return (
        (known.uri, known.sha256, known.key, known.lane, known.batch_id, known.model)
        == (wanted.uri, wanted.sha256, wanted.key, wanted.lane, wanted.batch_id, wanted.model)
        and dict(known.attributes) == dict(wanted.attributes)
        and _on_the_wire(known.parameters) == _on_the_wire(wanted.parameters)
    )


class Memory:
    """What this gateway published lately under a key, since the store needs a moment, and which keys it is working on."""

    def __init__(self, known: KnownImages, size: int = 10_000) -> None:
        self._known, self._size = known, size
        self._recent: OrderedDict[tuple[str, str], ImageRef] = OrderedDict()
        self._busy: set[tuple[str, str]] = set()

    @contextmanager
    def working_on(self, tenant: str, key: str) -> Iterator[None]:
        """Nobody else works on this key meanwhile, in this gateway. Raises ProblemError: 409 `idempotency_in_flight`."""
        if (tenant, key) in self._busy:
            raise ProblemError(
                409, "idempotency_in_flight", "a request with this Idempotency-Key is being worked on", 1
            )
        self._busy.add((tenant, key))
        try:
            yield
        finally:
            self._busy.remove((tenant, key))

    def remember(self, ref: ImageRef) -> None:
        """Kafka confirmed it."""
        self._recent[ref.tenant, ref.id] = ref
        if len(self._recent) > self._size:
            self._recent.popitem(last=False)

    async def look_up(self, tenant: str, ids: Sequence[str]) -> dict[str, Past]:
        """What is known of these ids. A store that does not answer knows nothing: then the same ids are written again, which is safe."""
        found: dict[str, Past] = {}
        try:
            async with asyncio.timeout(_LOOK_S):
                found |= await self._known.images_by_id(tenant, ids)
        except (BusyError, TimeoutError) as error:
            log.warning("retries are not recognised now: %r", error)
        return {
            image_id: self._recent[tenant, image_id] for image_id in ids if (tenant, image_id) in self._recent
        } | found

    async def is_complete(self, tenant: str, batch_id: str) -> bool:
        """Whether a batch is known to be closed."""
        try:
            async with asyncio.timeout(_LOOK_S):
                batch = await self._known.batch(tenant, batch_id)
        except (BusyError, TimeoutError):
            return False
        return batch is not None and batch.images is not None


class KeyedIds:
    """The ids of one request with a key, and what is known of them, looked up a page at a time."""

    def __init__(self, memory: Memory, tenant: str, key: str) -> None:
        self._memory, self._tenant, self._key = memory, tenant, key
        self._past: dict[str, Past] = {}
        self._looked = 0
        self._lock = asyncio.Lock()

    def batch_id(self) -> str:
        """The id of its batch, if it is one."""
        return derive_id(self._tenant, self._key, "batch")

    def image_id(self, index: int) -> str:
        """The id of its image of that place."""
        return derive_id(self._tenant, self._key, str(index))

    async def past(self, index: int) -> Past | None:
        """What is known of that image. A lone image costs a look for one, a batch one for each hundred."""
        async with self._lock:
            while index >= self._looked:
                count = 1 if self._looked == 0 else _PAGE
                ids = [self.image_id(at) for at in range(self._looked, self._looked + count)]
                self._past |= await self._memory.look_up(self._tenant, ids)
                self._looked += count
        return self._past.get(self.image_id(index))


def _on_the_wire(parameters: DetectParameters) -> tuple[object, ...]:
    """Numbers as single precision leaves them: so they come back from the log."""
    floats = (
        None if x is None else struct.unpack("f", struct.pack("f", x))[0]
        for x in (parameters.confidence, parameters.iou)
    )
    return (*floats, parameters.max_detections, parameters.classes)
