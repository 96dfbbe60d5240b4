"""The private names of Faust, mode and aiokafka that `streams.runs` builds on: an upgrade that changes one fails here first.

The hashes are of source text that was read and understood; after an upgrade, read it again, run the kill tests, then update the hash.
"""

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from faust.app.base import App
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import ConsumerMessage

from streams.runs import _Consumer, _ConsumerThread


@pytest.mark.parametrize(
    ("distribution", "version"), [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")]
)
def test_the_pinned_versions_are_installed(distribution: str, version: str) -> None:
    assert importlib.metadata.version(distribution) == version


READ_AND_UNDERSTOOD: dict[Callable[..., Any], str] = {
    Consumer._drain_messages: "44a2500309e83c63",
    Consumer._wait_next_records: "6218e1969a636b3f",
    Consumer._commit_tps: "a20e230b05ae8b15",
    Consumer._filter_committable_offsets: "dc5e9baf5d994485",
    Consumer._commit_offsets: "1a69799041188441",
    Consumer.perform_seek: "0e8c130ff4b0afd8",
    Consumer.on_partitions_revoked: "d04b7ae72c6fc206",
    Consumer.wait_empty: "e4662fe24f094819",
    PartitionRecords._consumer_record: "e668541600b047ab",
    PartitionRecords._unpack_records: "b803e6d46480732c",
    Fetcher.fetched_records: "be4348896b9b66af",
    TableManager.on_start: "365dd25fbc0e0684",
    App._on_partitions_revoked: "d5c895bbe57dc73a",
    App._stop_consumer: "55854a5de12c3f52",
    driver.AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f6cad",
    driver.AIOKafkaConsumerThread.on_start: "38b4e8bd1e10723a",
}


@pytest.mark.parametrize("method", READ_AND_UNDERSTOOD, ids=lambda method: method.__qualname__)
def test_what_it_overrides_or_relies_on_is_what_was_read(method: Callable[..., Any]) -> None:
    assert hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:16] == READ_AND_UNDERSTOOD[method]


def test_every_override_still_overrides_something() -> None:
    for ours, theirs in ((_Consumer, driver.Consumer), (_ConsumerThread, driver.AIOKafkaConsumerThread)):
        own = {name for name, value in vars(ours).items() if inspect.isfunction(value)} - {
            "_drain_once",
            "_rewind",
            "_deliver",
            "commit_safe",
        }
        assert {name for name in own if not hasattr(theirs, name)} == set()


def test_the_attributes_it_sets_exist() -> None:
    assert "prefetch_backoff" in inspect.signature(Fetcher).parameters
    assert "self._prefetch_backoff" in inspect.getsource(Fetcher)
    assert "self._isolation_level" in inspect.getsource(driver.aiokafka.AIOKafkaConsumer)
    assert "isolation_level=self._isolation_level" in inspect.getsource(driver.aiokafka.AIOKafkaConsumer.start)
    assert "tracked" in ConsumerMessage.__mro__[1].__slots__
    assert "not message.tracked" in inspect.getsource(Stream)
