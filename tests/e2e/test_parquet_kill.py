"""`kill -9` of a real sink process at every named point, on a real Kafka; its successor leaves each result there exactly once."""

import signal
from pathlib import Path

import pytest

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from sinks.base import Partition
from sinks.parquet import FAILPOINTS
from sinks.parquet_verify import verify
from tests.support.deliveries import eventually, mixed, put, sink_process
from tests.support.kafka import read_topic
from tests.support.results import check_lake, tip

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

SLOT = {"KAFKA_INSTANCE_ID": "slot-1", "PARQUET_MAX_ROWS": "30", "PARQUET_MAX_AGE_S": "0.2", "LOG_LEVEL": "warning"}


@pytest.mark.parametrize("point", FAILPOINTS)
def test_killed_at(
    point: str, connection: KafkaConnection, publisher: Publisher, topics: Topics, tmp_path: Path
) -> None:
    put(publisher, mixed(128))
    messages = read_topic(connection, topics.detections)
    ends = dict.fromkeys(range(4), 0) | {message.partition(): message.offset() + 1 for message in messages}
    # The second time: one file is through, so the chain has a past to be continued. One commit may be all there is.
    nth, slot = 1 if point.endswith("commit") else 2, SLOT | {"KAFKA_GROUP": topics.prefix}
    with sink_process(connection, topics, tmp_path, slot | {"FAILPOINT": f"{point}:{nth}"}) as victim:
        assert victim.wait(60) == -signal.SIGKILL
    assert not verify(tmp_path).violations
    with sink_process(connection, topics, tmp_path, slot) as successor:
        eventually(
            lambda: all(tip(tmp_path, Partition(topics.detections, p)) == end for p, end in ends.items()),
            "the successor carries everything over",
        )
        successor.send_signal(signal.SIGTERM)
        assert successor.wait(30) == 0
    check_lake(tmp_path, messages)
