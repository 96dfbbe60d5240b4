"""How to reach the brokers: one description, from which each client takes its own form."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SECURITY_NAMES: tuple[str, ...] = (
    "security.protocol",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConnection:
    """Bootstrap servers (`host:port,host:port`) and the security settings, under librdkafka's own names: `SECURITY_NAMES`."""

    bootstrap: str
    security: Mapping[str, str] = field(default_factory=dict, repr=False)

    def librdkafka(self) -> dict[str, str]:
        """Settings for any confluent-kafka client."""
        return {"bootstrap.servers": self.bootstrap, **self.security}
