"""The same connection for Faust's client: librdkafka's security names turned into Faust credentials."""

import ssl

import faust
from yarl import URL

from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError


def broker_urls(connection: KafkaConnection) -> list[URL]:
    """Faust's form of the bootstrap servers."""
    return [URL(f"kafka://{server.strip()}") for server in connection.bootstrap.split(",")]


def credentials(connection: KafkaConnection) -> faust.SSLCredentials | faust.SASLCredentials | None:
    """What Faust needs to log in, None for plain text. Raises ConfigurationError for a protocol it does not speak, or unreadable files."""
    security = connection.security
    protocol = security.get("security.protocol", "PLAINTEXT").upper()
    context = _context(connection) if protocol.endswith("SSL") else None
    match protocol:
        case "PLAINTEXT":
            return None
        case "SSL":
            return faust.SSLCredentials(context)
        case "SASL_SSL" | "SASL_PLAINTEXT":
            return faust.SASLCredentials(
                username=security.get("sasl.username"),
                password=security.get("sasl.password"),
                mechanism=security.get("sasl.mechanism", "PLAIN"),
                ssl_context=context,
            )
    raise ConfigurationError(f"kafka.security: unknown security.protocol {protocol!r}")


def _context(connection: KafkaConnection) -> ssl.SSLContext:
    security = connection.security
    try:
        context = ssl.create_default_context(cafile=security.get("ssl.ca.location"))
        if certificate := security.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, security.get("ssl.key.location"), security.get("ssl.key.password"))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"kafka.security: cannot load the TLS files: {error}") from error
    if security.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        context.check_hostname = False
    return context
