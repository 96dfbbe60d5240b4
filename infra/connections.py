"""Ask the brokers once, before work begins: librdkafka retries a wrong password for ever and says so only in a callback."""

import logging
import time
from enum import StrEnum

# ruff: noqa: SLF001 - librdkafka's own codes begin with an underscore
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError

_SLICE_S = 0.25


class _Cause(StrEnum):
    """Why nobody could be talked to, the plainest cause first: a refused password also ends in "all brokers down"."""

    CREDENTIALS = "they refuse these credentials; check sasl.username, sasl.password, sasl.mechanism"
    TLS = "TLS failed; check ssl.ca.location, ssl.certificate.location, ssl.key.location, security.protocol"
    NAME = "a host name is unknown; check kafka.bootstrap"
    NOBODY = "nobody answers there; check kafka.bootstrap and security.protocol"


def check_connection(connection: KafkaConnection, timeout_s: float = 10.0) -> None:
    """Return once a broker answered with its metadata.

    Raises ConfigurationError, with the remedy and without a secret: within a second or two for refused credentials, a failed TLS
    handshake, an unknown host or a closed port; after `timeout_s` where nobody answers at all. Does not show that anything may be
    read or written.
    """
    errors: list[KafkaError] = []
    try:
        client = AdminClient({**connection.librdkafka(), "error_cb": errors.append}, logger=_silent())
    except KafkaException as error:
        raise ConfigurationError(f"the Kafka settings are not valid: {error.args[0].str()}") from error
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            client.list_topics(timeout=_SLICE_S)
        except KafkaException:
            client.poll(_SLICE_S)
            _raise_known(errors, connection)
        else:
            return
    raise ConfigurationError(f"the brokers at {connection.bootstrap} did not answer within {timeout_s:g} s")


def _raise_known(errors: list[KafkaError], connection: KafkaConnection) -> None:
    causes = {cause for error in errors if (cause := _cause(error))}
    for cause in _Cause:
        if cause in causes:
            said = next(error.str() for error in errors if _cause(error) in (cause, None))
            raise ConfigurationError(f"cannot use the brokers at {connection.bootstrap}: {cause} ({said})")


def _cause(error: KafkaError) -> _Cause | None:
    code = error.code()
    # A broker that wants a client certificate hangs up within TLS, which librdkafka calls a transport failure.
    if code == KafkaError._SSL or "SSL routines" in error.str():
        return _Cause.TLS
    return {
        KafkaError._AUTHENTICATION: _Cause.CREDENTIALS,
        KafkaError._RESOLVE: _Cause.NAME,
        KafkaError._ALL_BROKERS_DOWN: _Cause.NOBODY,
    }.get(code)


def _silent() -> logging.Logger:
    """A logger that drops all: librdkafka's lines repeat the error many times (and its `log_level` would silence the callback too)."""
    logger = logging.getLogger("infra.connections.librdkafka")
    logger.disabled = True
    return logger
