"""Knobs of the result cache; imports nothing heavy, so that settings can hold them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """What results are kept for images that come again: by the image's sha256, model digest, backend, precision and parameters.

    `max_bytes`: in this process's memory, least recently used go first; 0 keeps none and asks no Redis either. `redis_url`
    (`redis://`, `rediss://`, `unix://`): shared among workers and kept over restarts, each entry for `redis_ttl_s`. A Redis that does not
    answer within `redis_timeout_s` costs that long once, and is left alone for `redis_pause_s` then.
    """

    max_bytes: int = 64 * 1024 * 1024
    redis_url: str = field(default="", repr=False)  # may hold a password
    redis_ttl_s: float = 7 * 24 * 3600.0
    redis_timeout_s: float = 0.1
    redis_pause_s: float = 5.0
