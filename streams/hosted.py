"""A worker with many models: where the registry and the rollouts send an image, as far as those versions are loaded here."""

import logging
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from detectors.base import Boxes, Image, ModelInfo
from detectors.curve import LatencyCurve
from detectors.hosting import Host, Loaded
from schemas.errors import BusyError, ConfigurationError, RejectedError
from schemas.models import ModelVersion
from schemas.records import DetectParameters
from schemas.rollouts import Rollout
from schemas.topics import Topics
from streams.fold import Fold, Latest
from streams.routes import STABLE_SUFFIX, Route, Routes
from streams.work import Seat

log = logging.getLogger(__name__)

Answer = Seat | RejectedError | BusyError


class Registry:
    """The folds of `models` and `rollouts`. `changed` is called after every record, on the follower's thread."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.versions = Latest(ModelVersion, lambda _key, _version: self.changed())
        self.rollouts = Latest(Rollout, lambda _key, _rollout: self.changed())

    def folds(self, topics: Topics) -> Mapping[str, Fold[ModelVersion] | Fold[Rollout]]:
        """For `streams.fold.Follower`."""
        return {topics.models: self.versions, topics.rollouts: self.rollouts}


class HostedModels:
    """`streams.models.Models` over the registry: an image goes where its route says, once that version is loaded here.

    Until then, and where it is refused, an image that did not ask for that very version gets the one that stood before, outside of any
    rollout; one that did waits a moment, then goes to a retry topic.
    """

    def __init__(self, routes: Routes, registry: Registry, host: Host, default: str) -> None:
        self._routes, self._registry, self._host, self._default = routes, registry, host, default
        self._standing: dict[str, str] = {}

    def start(self) -> Loaded:
        """Load what images get that ask for nothing, and see to it from now on. Raises ConfigurationError where that does not run here."""
        try:
            first = self._routes.resolve(_stable_of(self._default), "").model
        except RejectedError as error:
            raise ConfigurationError(f"models.default is {self._default!r}: {error}") from error
        loaded = self._host.load(first)
        self._standing[_name(first)] = first
        self._registry.changed = self.refresh
        self.refresh()
        return loaded

    def refresh(self) -> None:
        """Have loaded what images will want, before they come: called when registry or rollouts say something new."""
        needed = self._wanted(self._default)
        # What stands goes on until its successor is there.
        standing = self._standing.get(_name(self._default))
        self._host.need(needed | ({standing} if standing else set()))
        for name in set(self._standing) - {_name(self._default)}:
            for reference in self._wanted(name):
                self._host.want(reference)

    @property
    def default(self) -> Loaded | None:
        """What images get that ask for nothing and are in no rollout."""
        standing = self._standing.get(_name(self._default))
        return self._host.get(standing) if standing else None

    def seat(self, refs: pa.RecordBatch) -> Loaded | list[Answer]:
        """See `Models`. While everything of a batch waits for versions that are being loaded, so does it, for a bounded time."""
        asked, answers = self._answers(refs)
        if answers and all(isinstance(answer, BusyError) for answer in answers):
            self._host.wait({self._resolved(one) for one in asked})
            asked, answers = self._answers(refs)
        first = answers[0] if answers else None
        if isinstance(first, Seat) and all(answer is first for answer in answers):
            return first.loaded if first.route.rollout is None and first.shadow is None else answers
        return answers

    def _answers(self, refs: pa.RecordBatch) -> tuple[set[str | None], list[Answer]]:
        """One for each row. Outside of rollouts all that ask alike share one."""
        asked = refs.column("model").to_pylist()
        keys = zip(refs.column("key").to_pylist(), refs.column("id").to_pylist(), strict=True)
        known: dict[str | None, Answer] = {}
        answers: list[Answer] = []
        for wanted, (key, image_id) in zip(asked, keys, strict=True):
            answer = known.get(wanted)
            if answer is None:
                answer, shared = self._answer(wanted, key or image_id)
                if shared:
                    known[wanted] = answer
            answers.append(answer)
        return set(asked), answers

    def _answer(self, asked: str | None, key: str) -> tuple[Answer, bool]:
        """Where an image goes, and whether that holds for all that ask the same."""
        try:
            route = self._routes.resolve(asked, key)
        except RejectedError as error:
            return error, True
        shared = route.rollout is None
        if loaded := self._loaded(route.model):
            if shared and not _is_pinned(asked or self._default):
                self._stand(route.model)
            return Seat(loaded, route, self._loaded(route.shadow) if route.shadow else None), shared
        if _is_pinned(asked or self._default):
            return self._host.why_not(route.model), True
        standing = self._standing.get(_name(route.model))
        if standing and (loaded := self._loaded(standing)):
            return Seat(loaded, Route(standing)), shared
        return self._host.why_not(route.model), shared

    def _loaded(self, reference: str) -> Loaded | None:
        """A version that is loaded; where it is not, it will be."""
        if (loaded := self._host.get(reference)) is None:
            self._host.want(reference)
        return loaded

    def _stand(self, reference: str) -> None:
        name = _name(reference)
        before = self._standing.get(name)
        if before != reference:
            self._standing[name] = reference
            log.info("%s is what images of %s get from now on, after %s", reference, name, before or "nothing")
            self.refresh()

    def _resolved(self, asked: str | None) -> str:
        try:
            return self._routes.resolve(asked, "").model
        except RejectedError:
            return ""

    def _wanted(self, asked: str) -> set[str]:
        """What images that ask so may get: the stable version, and both arms of a rollout."""
        wanted = {self._resolved(_stable_of(asked))} - {""}
        rollout = None if "@" in asked else self._registry.rollouts.get(asked)
        if rollout is not None and rollout.live:
            wanted |= {one for one in (rollout.stable, rollout.candidate) if self._registry.versions.get(one)}
        return wanted


class DefaultModel:
    """What images get that ask for nothing, as the detector that batches are made for, and as its latency curve. It owns nothing."""

    def __init__(self, models: HostedModels, first: Loaded) -> None:
        self._models = models
        self.concurrency, self.max_batch = first.detector.concurrency, first.detector.max_batch
        self._model, self._curve = first.detector.model, first.curve

    @property
    def model(self) -> ModelInfo:
        """What stands now."""
        self._look()
        return self._model

    @property
    def now(self) -> LatencyCurve:
        """Its curve, as it is now."""
        self._look()
        return self._curve.now if self._curve else LatencyCurve(((1, 0.0),))

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order, by what stands now. Raises ConfigurationError where nothing does."""
        if (loaded := self._models.default) is None:
            raise ConfigurationError("no model is loaded")
        return loaded.detector.detect(images, parameters)

    def close(self) -> None:
        """Nothing to give back."""

    def _look(self) -> None:
        if loaded := self._models.default:
            self._model, self._curve = loaded.detector.model, loaded.curve


def _name(reference: str) -> str:
    return reference.partition("@")[0]


def _is_pinned(asked: str) -> bool:
    """Whether that very version is asked for."""
    return "@" in asked and not asked.endswith(STABLE_SUFFIX)


def _stable_of(asked: str) -> str:
    """What an image that asks so gets outside of rollouts, as it would ask for that."""
    return asked if "@" in asked else f"{asked}{STABLE_SUFFIX}"
