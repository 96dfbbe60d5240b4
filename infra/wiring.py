"""The composition root: settings in, parts out. Each function imports what it opens, so that a command loads no more than it uses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infra.settings import Settings

if TYPE_CHECKING:
    from detectors.cache import Store
    from detectors.curve import Paced
    from detectors.model_cache import ModelCache
    from detectors.opening import VersionOpener
    from detectors.spec import ModelSpec
    from producers.publisher import Publisher
    from schemas.codec import Codec

# The folder in the state directory where what was learnt of models on this machine is kept.
ENGINE = "engine"
# And where the files of the registry's models are.
MODELS = "models"


def open_codec(settings: Settings) -> "Codec":
    """A codec over the schema registry, or over the packaged schemas where none is set."""
    from schemas.codec import Codec, PackagedSchemas

    if settings.registry.url:
        from infra.registry import RegistrySchemas

        return Codec(RegistrySchemas(settings.registry, settings.topics))
    return Codec(PackagedSchemas())


def open_publisher(settings: Settings) -> "Publisher":
    """A publisher to the brokers of `settings`; a context manager."""
    from producers.publisher import Publisher

    return Publisher(settings.connection, open_codec(settings), settings.topics, settings.publisher)


@contextmanager
def own_detector(settings: Settings) -> Iterator["Paced | None"]:
    """The model of the section `model`, closed at the end; None where `models.default` says that they come from the registry."""
    if settings.models.default:
        yield None
        return
    detector = open_detector(settings)
    try:
        yield detector
    finally:
        detector.close()


def open_detector(settings: Settings) -> "Paced":
    """The model of `settings`, loaded, warm and timed, which infers no image twice while the cache knows it.

    Raises ConfigurationError where there is no model, or no backend for it, or no device to decode its images on.
    """
    from detectors.choice import check_decode_device

    check_decode_device(settings.images.decode_on)
    return _open_paced(settings.model, settings.state_dir / ENGINE, _open_stores(settings))


def open_opener(settings: Settings) -> "VersionOpener":
    """Opens versions of the registry as `open_detector` opens the one model; they share its cache of results."""
    from detectors.cache import Kept
    from detectors.choice import check_decode_device
    from detectors.opening import VersionOpener

    check_decode_device(settings.images.decode_on)
    learnt, stores = settings.state_dir / ENGINE, [Kept(store) for store in _open_stores(settings)]
    return VersionOpener(
        cache=open_model_cache(settings),
        base=settings.section("model"),
        learnt=learnt,
        open_spec=lambda spec: _open_paced(spec, learnt, stores),
        largest_input=settings.models.largest_input,
        rehearsed=settings.models.rehearse,
    )


def open_model_cache(settings: Settings) -> "ModelCache":
    """The files of the registry's models on this machine."""
    from detectors.model_cache import ModelCache
    from detectors.model_files import ModelFiles

    return ModelCache(settings.state_dir / MODELS, ModelFiles(settings.images.stores))


def _open_paced(spec: "ModelSpec", learnt: Path, stores: "Sequence[Store]") -> "Paced":
    from detectors.cache import CachedDetector
    from detectors.curve import PacedDetector, recall_or_measure
    from detectors.registry import open_detector as load

    loaded = load(spec, learnt)
    detector = PacedDetector(loaded, recall_or_measure(loaded, learnt))
    return CachedDetector(detector, spec, stores) if stores else detector


def _open_stores(settings: Settings) -> "list[Store]":
    from detectors.cache import MemoryStore

    if not settings.cache.max_bytes:
        return []
    stores: list[Store] = [MemoryStore(settings.cache.max_bytes)]
    if settings.cache.redis_url:
        from detectors.redis_store import RedisStore

        stores.append(RedisStore(settings.cache))
    return stores
