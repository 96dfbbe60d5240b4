"""A Kafka that trusts nobody: TLS by a throw-away authority, SCRAM, PLAIN and client certificates, ACLs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from infra.broker.configuration import Listener, Security
from infra.broker.local import LocalKafka
from infra.broker.locks import exclusive
from schemas.connection import KafkaConnection
from tests.support.kafka import SMALL

USERS = ("admin", "publisher", "worker", "parquet", "notifier", "awaiter", "redriver", "stranger")
_ANY = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)
_SCRAM, _PLAIN, _MUTUAL = range(3)  # places of the listeners


def password(user: str) -> str:
    """Each user's password."""
    return f"{user}-secret"


@dataclass(frozen=True, slots=True)
class SecureKafka:
    """The running cluster, and each way in. `admin` may do all; the other users nothing until `allow`."""

    kafka: LocalKafka
    files: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate, for `ssl.ca.location` and `ssl.create_default_context(cafile=)`."""
        return self.files / "ca.pem"

    @property
    def bootstrap(self) -> str:
        """Addresses of the SCRAM listener."""
        return self.kafka.bootstrap

    def scram(self, user: str, secret: str | None = None) -> KafkaConnection:
        """SASL SCRAM-SHA-512 over TLS; `secret` is another password than the right one."""
        return self._sasl(_SCRAM, "SCRAM-SHA-512", user, secret)

    def plain(self, user: str, secret: str | None = None) -> KafkaConnection:
        """SASL PLAIN over TLS."""
        return self._sasl(_PLAIN, "PLAIN", user, secret)

    def mutual(self, user: str) -> KafkaConnection:
        """TLS with a client certificate whose common name is the user."""
        files = {"ssl.certificate.location": f"{user}.pem", "ssl.key.location": f"{user}.key"}
        security = {name: str(self.files / file) for name, file in files.items()}
        return self._connection(_MUTUAL, {"security.protocol": "SSL", **security})

    def allow(self, bindings: Sequence[AclBinding]) -> None:
        """Add ACLs, and wait until the broker obeys them: the controller confirms them a moment earlier."""
        admin = AdminClient({**self.scram("admin").librdkafka(), "log_level": 0})
        for future in admin.create_acls(list(bindings)).values():
            future.result(timeout=30)
        deadline = time.monotonic() + 30
        while not set(bindings) <= set(admin.describe_acls(_ANY).result(timeout=30)):
            assert time.monotonic() < deadline, "the broker does not know the ACLs"
            time.sleep(0.02)

    def _sasl(self, listener: int, mechanism: str, user: str, secret: str | None) -> KafkaConnection:
        sasl = {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": secret or password(user)}
        return self._connection(listener, {"security.protocol": "SASL_SSL", **sasl})

    def _connection(self, listener: int, security: dict[str, str]) -> KafkaConnection:
        bootstrap = self.kafka.addresses(listener)
        return KafkaConnection(bootstrap=bootstrap, security={**security, "ssl.ca.location": str(self.ca)})


def start_secure(directory: Path) -> SecureKafka:
    """Start it, or join the one that runs in `directory`."""
    files = directory / "tls"
    with exclusive(directory / ".tls.lock"):
        if not (files / "done").exists():
            _issue(files)
    kafka = LocalKafka(directory, security=_security(files), jvm=SMALL)
    kafka.start()
    return SecureKafka(kafka, files)


def _issue(files: Path) -> None:
    files.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(files / "ca.pem")
    trustme.CA().cert_pem.write_to_path(files / "other-ca.pem")
    server = authority.issue_cert("127.0.0.1")
    # Kafka reads one file of key (PKCS#8), certificate and authority, in that order.
    chain = [_pkcs8(server.private_key_pem.bytes()), *(blob.bytes() for blob in server.cert_chain_pems)]
    (files / "server.pem").write_bytes(b"".join([*chain, authority.cert_pem.bytes()]))
    for user in USERS:
        client = authority.issue_cert(f"{user}.clients.test", common_name=user)
        client.private_key_pem.write_to_path(files / f"{user}.key")
        client.cert_chain_pems[0].write_to_path(files / f"{user}.pem")
    (files / "done").touch()


def _pkcs8(pem: bytes) -> bytes:
    return load_pem_private_key(pem, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _security(files: Path) -> Security:
    admin = f'username="admin" password="{password("admin")}"'
    plain_users = " ".join(f'user_{user}="{password(user)}"' for user in USERS)
    module = "org.apache.kafka.common.security"
    scram = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required {admin};",
    }
    plain = {
        "sasl.enabled.mechanisms": "PLAIN",
        "plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {admin} {plain_users};",
    }
    mutual = {"ssl.client.auth": "required", "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/"}
    return Security(
        listeners=(
            Listener(name="SCRAM", protocol="SASL_SSL", properties=scram),
            Listener(name="PLAIN", protocol="SASL_SSL", properties=plain),
            Listener(name="MUTUAL", protocol="SSL", properties=mutual),
        ),
        scram={user: password(user) for user in USERS},
        properties={
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(files / "server.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(files / "ca.pem"),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",  # anonymous: the controller's own plaintext port
        },
        admin={
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "admin",
            "sasl.password": password("admin"),
            "ssl.ca.location": str(files / "ca.pem"),
        },
    )
