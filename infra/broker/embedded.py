"""A broker within this process, with nothing to download: librdkafka's mock cluster, for a demo and a first try."""

import gc
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

log = logging.getLogger(__name__)

_LIMITS = (
    "embedded broker: records are in memory only and end with this process; about 5 MB are kept of each partition; every topic appears "
    "at first use with 4 partitions; topics cannot be created, deleted or looked up by time. For more: `sightstream broker start`"
)


class EmbeddedKafka:
    """A context manager that gives `bootstrap`; other processes of this machine may connect too.

    What it is not (told in the log when it starts): durable; a place to create or delete topics, to describe the cluster or to look up
    offsets by time (`supports_admin` is False: such calls time out); able to hide aborted transactions or to fence a zombie. About
    5 MB are kept of each partition: what is older is gone, read or unread. Never evidence for exactly-once or durability.
    """

    supports_admin = False
    partitions = 4
    """Of every topic; topics appear at first use."""

    def __init__(self, nodes: int = 1) -> None:
        self._nodes = nodes
        self._host: Producer | None = None
        self.bootstrap = ""

    def __enter__(self) -> Self:
        self._host = Producer({"test.mock.num.brokers": self._nodes, "log_level": 0})
        brokers = self._host.list_topics(timeout=10).brokers.values()
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        log.warning(_LIMITS, extra={"bootstrap": self.bootstrap})
        return self

    def create(self, topics: Iterable[str]) -> None:
        """Let topics exist before anybody writes to them: a consumer's question does not make one, a producer's does."""
        assert self._host is not None
        for topic in topics:
            self._host.list_topics(topic, timeout=10)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.collect()  # clients that nobody holds any more would complain about its end
        self._host = None  # the cluster lives as long as its client
