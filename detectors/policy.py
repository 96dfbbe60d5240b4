"""Knobs of image intake, as frozen values; imports nothing heavy, so that settings can hold them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTimeouts:
    """Bounds on one transfer over a network, in seconds; slower than any of them is a timeout.

    `read_s` is the longest silence; a transfer older than `grace_s` must have brought `min_bytes_per_s` on average.
    """

    total_s: float = 20.0
    connect_s: float = 5.0
    read_s: float = 5.0
    grace_s: float = 3.0
    min_bytes_per_s: int = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePolicy:
    """What may be fetched and decoded, and how much of it at once. The defaults allow public web servers and nothing else.

    `roots`: directories under which `file:` references may point. `stores`: object stores by `s3://bucket`, `gs://bucket` or
    `az://container`, each with obstore's own options (`endpoint`, `region` ...). `ports`: for http and https.
    `extra_networks`: addresses allowed although they are not public, for a private image host.
    `max_pixels` is checked on the header, before any pixel is decoded; a decoded image takes three bytes a pixel.
    At most `remote_concurrency` transfers run at once, `per_host` of them to one host.
    `decoders`: processes that decode; None: one for two usable cores, and at least two. One image may take `decode_timeout_s` of processor
    time and `decode_memory_bytes` of memory beside its pixels; one that wants more, or crashes its decoder, is refused and costs no other.
    A good picture of `max_pixels` may well take some seconds, as progressive JPEG, PNG or WebP.
    `decode_on`: `host`, or a device of torch (`cuda:0`) that decodes plain JPEGs, and the decoders everything else.
    After `host_failures` failures in a row a host is left alone for `host_pause_s`, so that its neighbours need not wait.
    """

    roots: tuple[Path, ...] = ()
    stores: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)  # may hold keys
    ports: frozenset[int] = frozenset({80, 443})
    extra_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_redirects: int = 3
    timeouts: FetchTimeouts = FetchTimeouts()
    remote_concurrency: int = 64
    per_host: int = 16
    host_failures: int = 5
    host_pause_s: float = 10.0
    decoders: int | None = None
    decode_timeout_s: float = 10.0
    decode_memory_bytes: int = 2 * 1024**3
    decode_on: str = "host"

    def __post_init__(self) -> None:
        if self.decoders is not None and self.decoders < 1:
            raise ValueError("decoders must be at least 1")
        if min(self.decode_timeout_s, self.decode_memory_bytes) <= 0:
            raise ValueError("decode_timeout_s and decode_memory_bytes must be more than 0")
