"""Results that are known already: a detector that never infers the same image twice, and the memory behind it."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import astuple
from typing import Protocol

import numpy as np

from detectors.around import Around
from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Thresholds, join
from detectors.curve import LearnedCurve, Paced
from detectors.metrics import CACHE_BYTES, CACHE_LOOKUPS
from detectors.spec import ModelSpec
from schemas.records import DetectParameters

# Part of every key: raise it when the same bytes may give other boxes (decoding, letterbox, suppression).
_GENERATION = 1
_ROW_BYTES = 24
# What an entry costs beside its key and value: the objects' own headers, and the table's slot.
_ENTRY_BYTES = 250


class Store(Protocol):
    """Bytes by key, for a while: what was put may be gone at any time. Never raises; safe to use from several threads."""

    @property
    def name(self) -> str:
        """Of the store, in metrics."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order, or None."""

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these."""

    def close(self) -> None:
        """Give back what it holds. Not called while it is used."""


class MemoryStore:
    """The most recently used entries, up to `max_bytes` with all that they cost."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order, or None."""
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._entries.move_to_end(key)
            return [self._entries.get(key) for key in keys]

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these; one that alone is above the bound is not kept."""
        with self._lock:
            for key, value in values.items():
                self._drop(key)
                self._entries[key] = value
                self._bytes += _cost(key, value)
                while self._bytes > self._max_bytes:
                    self._drop(next(iter(self._entries)))
            CACHE_BYTES.set(self._bytes)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _drop(self, key: bytes) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= _cost(key, value)


class Kept:
    """A store that several detectors share: none of them closes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def name(self) -> str:
        """Of the store, in metrics."""
        return self._store.name

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order, or None."""
        return self._store.get(keys)

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these."""
        self._store.put(values)

    def close(self) -> None:
        """Nothing: others use it still."""


class CachedDetector(Around[Paced]):
    """Infers an image once for its model and parameters, also where it is in several batches at the same time.

    An image whose sha256 is not known is inferred always. `stores` are asked in order, the quickest first; what a later one knows, the
    earlier ones are told.
    """

    def __init__(self, detector: Paced, spec: ModelSpec, stores: Sequence[Store]) -> None:
        super().__init__(detector)
        self._spec = spec.taking(detector.model.advice)
        self._stores = stores
        self._identity = _identity(detector.model)
        self._flying: dict[bytes, Future[Found]] = {}
        self._lock = threading.Lock()

    @property
    def curve(self) -> LearnedCurve:
        """Of the calls that are really made."""
        return self._detector.curve

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order. Raises what the detector raises; nothing is remembered of that."""
        keys = [self._key(image, wanted) for image, wanted in zip(images, parameters, strict=True)]
        rows = {key: keys.index(key) for key in keys if key}

        def infer(wanted: Sequence[int]) -> list[Found]:
            return self._infer([images[row] for row in wanted], [parameters[row] for row in wanted])

        theirs, ours = self._claim(list(rows))
        try:
            known = self._recall(list(ours))
            fresh = [rows[key] for key in ours if key not in known]
            unnamed = [row for row, key in enumerate(keys) if not key]
            inferred = dict(zip(fresh + unnamed, infer(fresh + unnamed), strict=True))
            self._remember({keys[row]: inferred[row] for row in fresh})
            known |= {keys[row]: inferred[row] for row in fresh}
            self._tell(ours, known)
        except BaseException:
            self._tell(ours, {})
            raise
        for key, future in theirs.items():
            known[key] = _wait(future) or infer([rows[key]])[0]
        return join([known[key] if key else inferred[row] for row, key in enumerate(keys)])

    def close(self) -> None:
        """Give back the device, and the stores' connections."""
        super().close()
        for store in self._stores:
            store.close()

    def _key(self, image: Image, wanted: DetectParameters) -> bytes:
        """Empty where the image's bytes are not known."""
        if not image.sha256:
            return b""
        thresholds = json.dumps(astuple(Thresholds.of(wanted, self._spec)))
        return hashlib.blake2b(f"{self._identity}\0{thresholds}\0{image.sha256}".encode(), digest_size=20).digest()

    def _claim(self, keys: Sequence[bytes]) -> tuple[dict[bytes, "Future[Found]"], dict[bytes, "Future[Found]"]]:
        """Who looks for what: keys that another call is at, and those that this one is at from now on."""
        with self._lock:
            theirs = {key: self._flying[key] for key in keys if key in self._flying}
            ours: dict[bytes, Future[Found]] = {key: Future() for key in keys if key not in theirs}
            self._flying.update(ours)
        CACHE_LOOKUPS.labels(store="flight", outcome="hit").inc(len(theirs))
        return theirs, ours

    def _tell(self, ours: Mapping[bytes, "Future[Found]"], known: Mapping[bytes, Found]) -> None:
        """Tell those who wait, and do so before waiting for anybody else: so nobody waits in a circle."""
        with self._lock:
            for key in ours:
                self._flying.pop(key, None)
        for key, future in ours.items():
            if key in known:
                future.set_result(known[key])
            else:
                future.cancel()

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, Found]:
        found: dict[bytes, Found] = {}
        for at, store in enumerate(self._stores):
            missing = [key for key in keys if key not in found]
            if not missing:
                break
            answers = {k: v for k, v in zip(missing, store.get(missing), strict=True) if v is not None}
            read = {key: one for key, value in answers.items() if (one := _read(value, len(self.model.labels)))}
            CACHE_LOOKUPS.labels(store=store.name, outcome="hit").inc(len(read))
            CACHE_LOOKUPS.labels(store=store.name, outcome="miss").inc(len(missing) - len(read))
            for quicker in self._stores[:at]:
                quicker.put({key: answers[key] for key in read})
            found |= read
        return found

    def _remember(self, fresh: Mapping[bytes, Found]) -> None:
        if fresh:
            values = {key: _write(one) for key, one in fresh.items()}
            for store in self._stores:
                store.put(values)

    def _infer(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> list[Found]:
        if not images:
            return []
        boxes = self._detector.detect(images, parameters)
        boxes.check(len(images), len(self.model.labels))
        edges = zip(boxes.offsets[:-1].tolist(), boxes.offsets[1:].tolist(), strict=True)
        return [Found(boxes.xyxy[a:b], boxes.scores[a:b], boxes.class_ids[a:b]) for a, b in edges]


def _wait(future: "Future[Found]") -> Found | None:
    """What the other call found; None where it failed, perhaps for a neighbour of this image."""
    try:
        return future.result()
    except CancelledError:
        return None


def _identity(model: ModelInfo) -> str:
    """All that the boxes depend on beside image and parameters."""
    return "\0".join((str(_GENERATION), model.digest, model.backend, model.precision, model.device, str(model.canvas)))


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_BYTES


def _write(found: Found) -> bytes:
    return found.xyxy.tobytes() + found.scores.tobytes() + found.class_ids.tobytes()


def _read(value: bytes, classes: int) -> Found | None:
    """None where the bytes cannot be boxes of a model of so many classes: another writer's, or damaged."""
    count, rest = divmod(len(value), _ROW_BYTES)
    if rest:
        return None
    xyxy = np.frombuffer(value, np.float32, 4 * count).reshape(count, 4)
    scores = np.frombuffer(value, np.float32, count, 16 * count)
    class_ids = np.frombuffer(value, np.int32, count, 20 * count)
    try:
        Boxes(np.array([0, count], np.int32), xyxy, scores, class_ids).check(1, classes)
    except ValueError:
        return None
    return Found(xyxy, scores, class_ids)
