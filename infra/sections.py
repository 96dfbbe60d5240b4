"""The sections of the settings that belong to no part: general names, Kafka, registry, HTTP, clients, logs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from schemas.connection import SECURITY_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralSettings:
    """Names without a section: where local state and downloads live, what build this is, how long a process may take to end.

    `grace_s`: from SIGTERM until a process that still drains is ended hard; longer than `worker.drain_s`.
    `failpoint`: the named point, and at which time of reaching it (`name:nth`), a test wants the process to die.
    """

    state_dir: Path = Path("var")
    cache_dir: Path = Path("~/.cache/sightstream")
    git_sha: str = "unknown"
    grace_s: float = 25.0
    failpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Brokers, how to reach them, and how topics are made.

    `security` takes librdkafka's names: `[kafka.security] "sasl.username" = ...`, or `SIGHTSTREAM_KAFKA_SASL_USERNAME`.
    `group` is the workers' consumer group, and the prefix of the others: `<group>.retry`, `<group>.parquet`, `<group>.notifier`.
    `instance_id` must be stable and unique for each slot: a process that died is then replaced without waiting for its session to expire.
    """

    bootstrap: str = "127.0.0.1:9092"
    security: Mapping[str, str] = field(default_factory=dict, repr=False, metadata={"keys": SECURITY_NAMES})
    prefix: str = ""
    partitions: int = 4
    replication: int = 1
    group: str = "sightstream"
    instance_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """A Confluent-compatible schema registry; without one the packaged schemas are used.

    `url` may be a list with commas, tried in turn. `ca_location` is a PEM file or directory; without it the usual authorities are trusted.
    """

    url: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_location: str | None = None
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where HTTP is served. Anything beyond loopback needs `public = true`, since nothing here authenticates a caller."""

    host: str = "127.0.0.1"
    port: int = 8080
    public: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The gateway that `sightstream detect` speaks to, and the credential that it shows: an API key or a JWT."""

    server: str = "http://127.0.0.1:8080"
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`format`: `json`, `console`, or `auto`: console on a terminal, else JSON. `level` is a name of the standard library's."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
