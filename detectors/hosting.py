"""Versions of models that are loaded, side by side: brought in beside those that run, let go when they are not needed."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Protocol

from detectors import metrics
from detectors.base import Detector
from detectors.curve import Curve, Paced
from detectors.hosting_policy import ModelsPolicy
from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError
from schemas.models import ModelState, ModelVersion, Stage
from schemas.records import EPOCH

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Loaded:
    """A version that runs. Whoever holds this may use it: it is closed once nobody does.

    `reference` is `name@version`. `identity`: what results are told apart by beside image and parameters. `curve`: how long its calls
    take, if that is known.
    """

    reference: str
    detector: Detector
    identity: str
    curve: Curve | None = None


class Opener(Protocol):
    """Makes a version ready. Called on the loading thread."""

    def prepare(self, version: ModelVersion) -> int:
        """Fetch and check its files and try it out; returns the memory it will take. Raises like `open`."""

    def open(self, version: ModelVersion) -> Paced:
        """A detector that is warm. Raises BusyError for what may go away by itself; anything else refuses the version."""


Tell = Callable[[ModelVersion, ModelState, str], None]
"""Told what became of a version, and why; on any thread."""


@dataclass(slots=True)
class _Slot:
    """A version that was asked for. `due`: when it may be tried again (monotonic); `since`: when it was first wanted."""

    version: ModelVersion
    state: ModelState
    since: float
    reason: str = ""
    due: float = float("inf")
    loaded: Loaded | None = None
    memory_bytes: int = 0
    used_at: float = 0.0


class Host:
    """The versions that a worker has loaded. Thread-safe; loading happens on a thread of its own, one version at a time.

    `find` looks a version up in the registry by its reference. A version whose record changed is loaded anew; until that has succeeded,
    what was loaded before goes on.
    """

    def __init__(
        self,
        find: Callable[[str], ModelVersion | None],
        opener: Opener,
        policy: ModelsPolicy,
        tell: Tell = lambda _version, _state, _reason: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._opener, self._policy, self._tell, self._now = find, opener, policy, tell, now
        self._slots: dict[str, _Slot] = {}
        self._needed: frozenset[str] = frozenset()
        self._changed = threading.Condition()
        self._loading = ThreadPoolExecutor(1, "models")
        self._unused: SimpleQueue[Paced | None] = SimpleQueue()
        self._closing = threading.Thread(target=self._close_unused, name="models-closing", daemon=True)
        self._closing.start()

    def need(self, references: Iterable[str]) -> None:
        """From now on these are kept, whatever the memory, and loaded if they are not; others are let go when room is wanted."""
        with self._changed:
            self._needed = frozenset(references)
        for reference in sorted(self._needed):
            self.want(reference)

    def get(self, reference: str) -> Loaded | None:
        """A version, if it is loaded; that counts as a use. Never waits."""
        slot = self._slots.get(reference)
        if slot is None or slot.loaded is None:
            return None
        slot.used_at = self._now()
        return slot.loaded

    def want(self, reference: str) -> None:
        """Have a version loaded, unless it is, or could not be a moment ago. Never waits."""
        version = self._find(reference)
        with self._changed:
            slot = self._slots.get(reference)
            if version is None or (slot is not None and not self._outdated(slot, version)):
                return
            kept = (slot.loaded, slot.memory_bytes) if slot else (None, 0)
            fresh = _Slot(version, ModelState.LOADING, self._now(), loaded=kept[0], memory_bytes=kept[1])
            self._slots[reference] = fresh
        self._tell(version, ModelState.LOADING, "")
        self._loading.submit(self._load, fresh)

    def why_not(self, reference: str) -> BusyError:
        """Why a version is not there: for its images."""
        slot = self._slots.get(reference)
        if slot is None or slot.state is ModelState.LOADING:
            return BusyError(Reason.MODEL_UNAVAILABLE, f"{reference} is being loaded", 1.0)
        return BusyError(
            Reason.MODEL_UNAVAILABLE, f"{reference} does not run here: {slot.reason}", self._policy.retry_s
        )

    def wait(self, references: Iterable[str]) -> None:
        """Wait until one of them is loaded or none is being loaded; no longer than `load_wait_s` from when each was first wanted."""
        asked = set(references)
        with self._changed:
            while True:
                slots = [self._slots[one] for one in asked if one in self._slots]
                ends = [
                    one.since + self._policy.load_wait_s
                    for one in slots
                    if one.state is ModelState.LOADING and not one.loaded
                ]
                left = max(ends, default=0.0) - self._now()
                if left <= 0 or any(one.loaded for one in slots):
                    return
                self._changed.wait(left)

    def load(self, reference: str) -> Loaded:
        """Load a version and wait for it, however long it takes. Raises ConfigurationError where that does not succeed."""
        self.want(reference)
        with self._changed:
            while (slot := self._slots.get(reference)) and slot.state is ModelState.LOADING:
                self._changed.wait()
        if slot is None or slot.loaded is None:
            raise ConfigurationError(f"the model {reference} does not run here: {slot.reason if slot else 'unknown'}")
        return slot.loaded

    @property
    def states(self) -> dict[str, tuple[ModelVersion, ModelState, str]]:
        """What became of each version that was asked for."""
        with self._changed:
            return {name: (slot.version, slot.state, slot.reason) for name, slot in self._slots.items()}

    def close(self) -> None:
        """Let go of everything, once what is being loaded is there. Not called while a version is in use."""
        self._loading.shutdown(cancel_futures=True)
        with self._changed:
            self._slots.clear()
        self._unused.put(None)
        self._closing.join()

    def _outdated(self, slot: _Slot, version: ModelVersion) -> bool:
        """Whether another try may have another end."""
        if slot.version is not version and _substance(slot.version) != _substance(version):
            return True
        return slot.state in (ModelState.REFUSED, ModelState.UNLOADED) and self._now() >= slot.due

    def _load(self, slot: _Slot) -> None:
        version, began = slot.version, self._now()
        try:
            wanted = self._opener.prepare(version)
            self._make_room(version.reference, wanted)
            detector = self._opener.open(version)
        except BusyError as error:
            self._refuse(slot, str(error))
        except (RejectedError, ConfigurationError) as error:
            self._refuse(slot, str(error))
        except Exception as error:  # noqa: BLE001 - a backend raises what it likes over a file that is no model
            self._refuse(slot, f"{type(error).__name__}: {error}")
        else:
            loaded = Loaded(version.reference, detector, f"{version.digest}\0{version.reference}", detector.curve)
            # On a thread of its own: who lets go last may be the event loop.
            weakref.finalize(loaded, self._unused.put, detector).atexit = False
            with self._changed:
                slot.loaded, slot.memory_bytes = loaded, wanted
                slot.state, slot.used_at = ModelState.LOADED, self._now()
                self._count()
                self._changed.notify_all()
            log.info("loaded the model %s in %.1f s", version.reference, self._now() - began)
            self._report(version, ModelState.LOADED, "")

    def _refuse(self, slot: _Slot, reason: str) -> None:
        with self._changed:
            slot.state, slot.reason, slot.due = ModelState.REFUSED, reason, self._now() + self._policy.retry_s
            self._changed.notify_all()
        log.error("the model %s is refused: %s", slot.version.reference, reason)
        self._report(slot.version, ModelState.REFUSED, reason)

    def _make_room(self, reference: str, wanted: int) -> None:
        """Let the least recently used go until `wanted` fits. Raises ConfigurationError where it does not fit beside what is needed."""
        with self._changed:
            idle = sorted(
                (slot.used_at, name)
                for name, slot in self._slots.items()
                if slot.loaded and name != reference and name not in self._needed
            )
            going: list[_Slot] = []
            while self._taken(reference) + wanted > self._policy.memory_bytes and idle:
                slot = self._slots[idle.pop(0)[1]]
                slot.loaded, slot.memory_bytes, slot.state, slot.due = None, 0, ModelState.UNLOADED, self._now()
                going.append(slot)
            self._count()
            taken = self._taken(reference)
        for slot in going:
            log.info("unloaded the model %s to make room for %s", slot.version.reference, reference)
            self._report(slot.version, ModelState.UNLOADED, f"made room for {reference}")
        if taken and taken + wanted > self._policy.memory_bytes:
            raise ConfigurationError(
                f"it needs {wanted} bytes, and what is needed beside it {taken}: more than models.memory_bytes"
            )

    def _taken(self, but: str) -> int:
        return sum(slot.memory_bytes for name, slot in self._slots.items() if name != but)

    def _count(self) -> None:
        loaded = [slot for slot in self._slots.values() if slot.loaded]
        metrics.MODELS_LOADED.set(len(loaded))
        metrics.MODELS_MEMORY.set(sum(slot.memory_bytes for slot in loaded))

    def _report(self, version: ModelVersion, state: ModelState, reason: str) -> None:
        metrics.MODEL_CHANGES.labels(model=version.reference, state=state).inc()
        self._tell(version, state, reason)

    def _close_unused(self) -> None:
        while (detector := self._unused.get()) is not None:
            try:
                detector.close()
            except Exception:
                log.exception("a model that is not used any more could not be closed")


def _substance(version: ModelVersion) -> ModelVersion:
    """What a loaded version depends on, without its history."""
    return replace(version, stage=Stage.CANDIDATE, metrics={}, licence="", lineage={}, added_at=EPOCH, changed_at=EPOCH)
