"""Where the partitions of a topic end now."""

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import ConfigurationError

_PATIENCE_S = 15.0
_REQUEST_S = 5.0
_LOOK_AGAIN_S = 0.1


def end_offsets(consumer: Consumer, topic: str, now: Callable[[], float] = time.monotonic) -> dict[int, int]:
    """Partition -> the offset after its last record, asked of its leader.

    Waits a while where a partition has no leader, as one that was just created. Raises `ConfigurationError` if there is no
    such topic, or nobody answers.
    """
    deadline = now() + _PATIENCE_S
    while True:
        try:
            return _ask(consumer, topic)
        except KafkaException as error:
            if now() > deadline or error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise ConfigurationError(f"cannot read {topic}: {error.args[0].str()}") from error
            consumer.poll(_LOOK_AGAIN_S)


def _ask(consumer: Consumer, topic: str) -> dict[int, int]:
    found = consumer.list_topics(topic, timeout=_REQUEST_S).topics[topic]
    if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise ConfigurationError(f"there is no topic {topic}: run `sightstream topics create`")
    if found.error is not None:
        raise KafkaException(found.error)
    places = [TopicPartition(topic, partition) for partition in found.partitions]
    return {place.partition: consumer.get_watermark_offsets(place, _REQUEST_S)[1] for place in places}
