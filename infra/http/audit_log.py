"""Puts audit events on their topic."""

from confluent_kafka import KafkaError, Message

from infra.http.metrics import AUDIT_DROPPED
from producers.publisher import Publisher
from schemas.control import AuditEvent


class AuditLog:
    """`audit.Record` over a publisher. What Kafka does not confirm is counted: nobody waits for it."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def __call__(self, event: AuditEvent) -> None:
        """Send it. Blocks while the publisher's buffer is full; raises as `Publisher.send` does."""
        publisher = self._publisher
        publisher.send(publisher.topics.audit, event.tenant.encode() or None, publisher.codec.encode(event), _report)


def _report(error: KafkaError | None, _: Message) -> None:
    if error is not None:
        AUDIT_DROPPED.labels("unconfirmed").inc()
