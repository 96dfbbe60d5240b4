"""The embedded broker takes and gives records, and says what it cannot do."""

import logging

import pytest

from infra.broker.embedded import EmbeddedKafka
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.kafka import read_topic


def test_records_go_round(codec: Codec) -> None:
    topics = Topics()
    with EmbeddedKafka() as broker:
        connection = KafkaConnection(bootstrap=broker.bootstrap)
        with Publisher(connection, codec, topics) as publisher:
            publisher.publish(ImageRef(id="a", uri="file:///a.jpg")).result(timeout=30)
        (message,) = read_topic(connection, topics.online, at_least=1)
        value = message.value()
    assert codec.decode(value, ImageRef).id == "a"


def test_limits_are_told_when_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), EmbeddedKafka(nodes=3) as broker:
        assert broker.bootstrap.count(":") == 3
    assert "in memory only" in caplog.text
    assert not broker.supports_admin
