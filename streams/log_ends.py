"""Where the log ends now, for readers who must know whether the store has all of it: many ask at once, one question answers them."""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.connection import KafkaConnection
from schemas.errors import BusyError, Reason
from schemas.topics import Topics
from sinks.base import Partition
from streams.projected import followed_topics

log = logging.getLogger(__name__)

_REQUEST_S = 5.0
_RETRY_S = 1.0
_LISTED_S = 10.0


class KafkaLogEnds:
    """The ends of every topic that the result store follows, but for the workers' progress, which never rests.

    A `sinks.store_base.LogEnds`. Whoever asks while a question is under way waits for the next one, whose answer is newer than the asking.
    Needs DESCRIBE on the topics. Close it at the end.
    """

    def __init__(self, connection: KafkaConnection, topics: Topics) -> None:
        self._topics = [name for name in followed_topics(topics) if name != topics.progress]
        self._connection = connection
        self._admin = self._connect()
        self._thread = ThreadPoolExecutor(1, "log-ends")
        self._partitions: list[TopicPartition] = []
        self._listed_at = -_LISTED_S
        self._next: asyncio.Task[Mapping[Partition, int]] | None = None
        self._turn = asyncio.Lock()

    async def ends(self) -> Mapping[Partition, int]:
        """End of each partition, as of now or later. Raises BusyError while the brokers do not answer."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask_in_turn())
        return await asyncio.shield(self._next)

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _connect(self) -> AdminClient:
        return AdminClient({**self._connection.librdkafka(), "client.id": "sightstream.log-ends"})

    async def _ask_in_turn(self) -> Mapping[Partition, int]:
        async with self._turn:
            self._next = None  # from here on the answer may be older than the asking
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)

    def _ask(self) -> Mapping[Partition, int]:
        try:
            return self._list_ends()
        except TimeoutError as error:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "the brokers do not answer in time", _RETRY_S) from error
        except KafkaException as error:
            # A client that knew another leader goes on with that one's epoch until its metadata are old: a new client asks afresh.
            log.warning("log ends: asks again: %s", error)
            self._listed_at = -_LISTED_S
            self._admin = self._connect()
        try:
            return self._list_ends()
        except (KafkaException, TimeoutError) as error:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, f"the brokers do not answer: {error}", _RETRY_S) from error

    def _list_ends(self) -> Mapping[Partition, int]:
        asked = self._admin.list_offsets(
            {place: OffsetSpec.latest() for place in self._places()},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_REQUEST_S,
        )
        return {Partition(p.topic, p.partition): future.result(_REQUEST_S).offset for p, future in asked.items()}

    def _places(self) -> list[TopicPartition]:
        """Which partitions there are, as of at most 10 s ago."""
        if time.monotonic() - self._listed_at >= _LISTED_S:
            known = self._admin.list_topics(timeout=_REQUEST_S).topics
            names = [name for name in self._topics if name in known]
            self._partitions = [TopicPartition(name, index) for name in names for index in known[name].partitions]
            self._listed_at = time.monotonic()
        return self._partitions
