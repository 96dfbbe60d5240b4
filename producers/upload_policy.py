"""The knobs of uploads, apart from them so that reading settings loads no object store."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPolicy:
    """Where uploaded images are kept, and which are taken.

    `url`: a folder, or `s3://BUCKET/PREFIX`, `gs://...`, `az://...`; workers must be allowed to read it (`images.roots`, `images.stores`).
    `options`: obstore's own for that store (`endpoint`, `region`, keys ...). `max_bytes` and `max_pixels` are of one image, and should be
    those of `images`. Of an upload at most `spool_bytes` are in memory, the rest is in a file of `spool_dir` (None: the system's).
    `secret` signs upload URLs of a folder, and must be the same in all gateways; empty: one of this process alone, new with each start.
    `signed_s`: how long an upload URL is good. `scanner`: clamd at `unix:/PATH` or `tcp://HOST:PORT`, which then must find every upload
    clean; empty: nothing is scanned. `scans`: how many at once.
    """

    url: str = "var/uploads"
    options: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold keys
    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 50_000_000
    spool_bytes: int = 1024 * 1024
    spool_dir: str | None = None
    threads: int = 4
    timeout_s: float = 20.0
    secret: str = field(default="", repr=False)
    signed_s: float = 900.0
    scanner: str = ""
    scan_timeout_s: float = 20.0
    scans: int = 8
