"""Schema ids from a Confluent-compatible registry; its failures never cost a record."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import httpx2  # what the pinned confluent-kafka speaks HTTP with: its errors come through
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from infra.sections import RegistrySettings
from schemas import avro_files
from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError
from schemas.topics import Topics

log = logging.getLogger(__name__)

COMPATIBILITY = "FULL_TRANSITIVE"
_RETRY_AFTER_S = 5.0
_REPLICA_LAG_S = 0.2
_FORGET_UNKNOWN_S = 30.0
_MOST_UNKNOWN = 10_000


class RegistrySchemas:
    """`schemas.codec.SchemaIds` over a registry. Thread-safe. Schemas once seen need no registry any more.

    Making one registers every packaged schema under `{topic}-value` of each topic, oldest version first, so that all processes get the
    same ids. Raises ConfigurationError where the registry refuses a schema, the credentials or the address is wrong, and BusyError
    where it does not answer. A registry that forgets its schemas (an in-memory one that restarts) is not noticed.
    """

    def __init__(
        self, registry: RegistrySettings, topics: Topics, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._registry = registry
        self._sleep = sleep
        self._unknown: dict[int, float] = {}
        self._waited_at = -_FORGET_UNKNOWN_S
        with connect(registry) as client, _mapped(f"register schemas at {registry.url}", starting=True):
            self._ids = _register(client, topics)
        self._known = {schema_id: avro_files.text(version) for version, schema_id in self._ids.items()}

    def id_of(self, record: str) -> int:
        """The registry's id of the newest version."""
        return self._ids[avro_files.current(record)]

    def schema_of(self, schema_id: int) -> str:
        """The schema behind an id. A registry that says there is none is asked twice; that answer then holds for half a minute."""
        if schema_id not in self._known:
            if self._unknown.get(schema_id, 0.0) > time.monotonic():
                raise _unknown(schema_id)
            self._known[schema_id] = self._fetch(schema_id)
        return self._known[schema_id]

    def _fetch(self, schema_id: int) -> str:
        for _ in range(2):
            # A new id is so rare that a connection kept for the next one would only be cut in the meantime.
            with connect(self._registry) as client, _mapped(f"read schema {schema_id}"):
                try:
                    found = client.get_schema(schema_id)
                except SchemaRegistryError as error:
                    if error.http_status_code != 404:
                        raise
                    self._wait_for_replica()
                else:
                    if not found.schema_str:
                        raise ValueError("an answer without a schema")
                    return str(found.schema_str)
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[schema_id] = time.monotonic() + _FORGET_UNKNOWN_S
        raise _unknown(schema_id)

    def _wait_for_replica(self) -> None:
        """A follower may learn of a new id a little late; but a stream of made-up ids must not stop the work."""
        if time.monotonic() - self._waited_at >= _FORGET_UNKNOWN_S:
            self._waited_at = time.monotonic()
            self._sleep(_REPLICA_LAG_S)


def connect(registry: RegistrySettings) -> SchemaRegistryClient:
    """A client that gives up in time. Raises ConfigurationError; asks nobody yet."""
    if not registry.url:
        raise ConfigurationError("no schema registry: set registry.url (environment SIGHTSTREAM_REGISTRY_URL)")
    conf: dict[str, object] = {
        "url": registry.url,
        "timeout": registry.timeout_s,
        "max.retries": 1,
        "retries.wait.ms": 200,
    }
    if registry.username:
        conf["basic.auth.user.info"] = f"{registry.username}:{registry.password or ''}"
    if registry.ca_location:
        conf["ssl.ca.location"] = registry.ca_location
    try:
        return SchemaRegistryClient.new_client(conf)
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"the registry settings are not valid: {error}") from error


def incompatible(registry: RegistrySettings, topics: Topics) -> Sequence[str]:
    """Subjects to whose registered versions a packaged schema is not compatible. Raises ConfigurationError and BusyError."""
    packaged = [
        (subject_of(topic.name), version)
        for topic in topics.catalogue()
        for version in avro_files.versions(topic.record)
    ]
    with connect(registry) as client, _mapped(f"check schemas at {registry.url}", starting=True):
        return [
            f"{subject}: {version}" for subject, version in packaged if not _is_compatible(client, subject, version)
        ]


def subject_of(topic: str) -> str:
    """The subject of a topic's values, by the strategy TOPIC."""
    return f"{topic}-value"


def _is_compatible(client: SchemaRegistryClient, subject: str, version: str) -> bool:
    try:
        return bool(client.test_compatibility_all_versions(subject, Schema(avro_files.text(version), "AVRO")))
    except SchemaRegistryError as error:
        if error.http_status_code != 404:
            raise
        return True  # nothing registered yet


def _register(client: SchemaRegistryClient, topics: Topics) -> dict[str, int]:
    ids: dict[str, int] = {}
    for topic in topics.catalogue():
        subject = subject_of(topic.name)
        guarded = _guard(client, subject)
        for version in avro_files.versions(topic.record):
            schema = Schema(avro_files.text(version), "AVRO")
            given = client.register_schema(subject, schema, normalize_schemas=True)
            if ids.setdefault(version, given) != given:
                log.warning(
                    "the registry has two ids for one schema",
                    extra={"schema": version, "subject": subject, "id": given, "used_id": ids[version]},
                )
        if not guarded and not _guard(client, subject):
            raise ConfigurationError(f"the registry does not take {COMPATIBILITY} for {subject}")
    return ids


def _guard(client: SchemaRegistryClient, subject: str) -> bool:
    """Have the registry refuse incompatible versions of a subject. False where it must have a version first."""
    for again in (True, False):
        try:
            client.set_compatibility(subject, COMPATIBILITY)
        except SchemaRegistryError as error:
            if error.http_status_code == 404:
                return False
            # Apicurio's answer where another process makes the rule at this moment: it is there now, and can be set.
            if error.http_status_code != 409 or not again:
                raise
        else:
            break
    return True


@contextmanager
def _mapped(doing: str, *, starting: bool = False) -> Iterator[None]:
    """Errors of the client by remedy; one that speaks of our side of things is the operator's when a process starts, else it waits."""
    try:
        yield
    except SchemaRegistryError as error:
        ours = 400 <= error.http_status_code < 500 and error.http_status_code not in {408, 429}
        message = f"cannot {doing}: {error.http_status_code}: {error.error_message}"[:500]
        if starting and ours:
            raise ConfigurationError(message) from error
        raise _busy(message) from error
    except (httpx2.HTTPError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # All but the first two: an answer that is not the registry's, such as a proxy's page.
        raise _busy(f"cannot {doing}: {type(error).__name__}: {error}"[:500]) from error


def _busy(message: str) -> BusyError:
    return BusyError(Reason.STORAGE_UNAVAILABLE, message, _RETRY_AFTER_S)


def _unknown(schema_id: int) -> RejectedError:
    return RejectedError(Reason.SCHEMA_UNKNOWN, f"the registry has no schema with the id {schema_id}")
