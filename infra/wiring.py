"""The composition root: settings in, parts out. Each function imports what it opens, so that a command loads no more than it uses."""

from typing import TYPE_CHECKING

from infra.settings import Settings

if TYPE_CHECKING:
    from detectors.curve import Paced
    from producers.publisher import Publisher
    from schemas.codec import Codec

# The folder in the state directory where what was learnt of models on this machine is kept.
ENGINE = "engine"


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


def open_detector(settings: Settings) -> "Paced":
    """The model of `settings`, loaded, warm and timed, which infers no image twice while the cache knows it.

    Raises ConfigurationError where there is no model, or no backend for it, or no device to decode its images on.
    """
    from detectors.choice import check_decode_device
    from detectors.curve import PacedDetector, recall_or_measure
    from detectors.registry import open_detector as load

    check_decode_device(settings.images.decode_on)
    learnt = settings.state_dir / ENGINE
    loaded = load(settings.model, learnt)
    detector = PacedDetector(loaded, recall_or_measure(loaded, learnt))
    return _remembering(settings, detector) if settings.cache.max_bytes else detector


def _remembering(settings: Settings, detector: "Paced") -> "Paced":
    from detectors.cache import CachedDetector, MemoryStore, Store

    stores: list[Store] = [MemoryStore(settings.cache.max_bytes)]
    if settings.cache.redis_url:
        from detectors.redis_store import RedisStore

        stores.append(RedisStore(settings.cache))
    return CachedDetector(detector, settings.model, stores)
