"""What operators do with API keys: hand out, end, replace. Each step is a confirmed record on the topic `keys`, and one on `audit`."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from infra.key_follower import KeyFollower
from infra.key_ring import KeyRing, earlier, state_of
from infra.keys import NewKey, make_key
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.control import ApiKey, AuditEvent
from schemas.errors import ConfigurationError
from streams.fold import read_to_end

_OPERATOR = "operator"


class KeyLedger:
    """Reads all keys and writes new records of them. Every method may raise ConfigurationError or DeliveryError.

    What two operators do to one key at the same time ends at the stricter of the two: each reads again after it wrote.
    """

    def __init__(self, connection: KafkaConnection, publisher: Publisher, group: str = "sightstream.keys") -> None:
        self._connection, self._publisher, self._group = connection, publisher, group

    def read(self) -> KeyRing:
        """The keys as they are now."""
        follower = KeyFollower(self._connection, self._publisher.codec, self._publisher.topics.keys, self._group)
        read_to_end(follower)
        return follower.ring

    def create(
        self, tenant: str, scopes: Iterable[str], name: str, now: datetime, expires_at: datetime | None = None
    ) -> NewKey:
        """Hand out a key: valid everywhere within a second from the return."""
        made = make_key(tenant, scopes, name, now, expires_at)
        self._write(made.record)
        self._tell("keys create", made.record, now)
        return made

    def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """End a key: refused everywhere within a second from the return. Once is enough; again changes nothing."""
        ended = self._amend(key_id, lambda key: key if key.revoked_at else replace(key, revoked_at=now))
        self._tell("keys revoke", ended, now)
        return ended

    def rotate(
        self, key_id: str, now: datetime, overlap: timedelta, lifetime: timedelta | None
    ) -> tuple[NewKey, ApiKey]:
        """A new key for the same tenant, name and scopes; the old one counts for `overlap` more. `lifetime`: of the new one."""
        old = self._find(self.read(), key_id)
        if (state := state_of(old, now)) != "live":
            raise ConfigurationError(f"the key {key_id} is {state}: create another one")
        made = self.create(old.tenant, old.scopes, old.name, now, now + lifetime if lifetime else None)
        ending = self._amend(key_id, lambda key: replace(key, expires_at=earlier(key.expires_at, now + overlap)))
        self._tell("keys rotate", ending, now)
        return made, ending

    def _amend(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        wanted = change(self._find(self.read(), key_id))
        self._write(wanted)
        settled = self._find(self.read(), key_id)
        if settled != wanted:  # somebody else wrote meanwhile: the last record must say what both did
            self._write(settled)
        return settled

    @staticmethod
    def _find(ring: KeyRing, key_id: str) -> ApiKey:
        if (key := ring.find(key_id)) is None:
            raise ConfigurationError(f"there is no key {key_id}: `sightstream keys list` shows their ids")
        return key

    def _write(self, key: ApiKey) -> None:
        self._publisher.put(self._publisher.topics.keys, key.id, key).result()

    def _tell(self, action: str, key: ApiKey, now: datetime) -> None:
        """Who may write to the topic `keys` is for Kafka to say, so the event names the key alone."""
        event = AuditEvent(
            id=os.urandom(16).hex(), at=now, tenant=key.tenant, subject=_OPERATOR, action=action, target=key.id
        )
        self._publisher.put(self._publisher.topics.audit, key.tenant, event).result()
