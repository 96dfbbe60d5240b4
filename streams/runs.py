"""A Faust transport that hands an agent whole runs of records, and commits only what our own ledger calls safe.

Stock Faust spends about 100 microseconds of asyncio work on each message before an agent sees it, and its offset bookkeeping commits
past records in flight. Here one event is one *run*: the records fetched for one partition, at most `max_run` of them. Faust tracks no
message and counts no ack; it asks `Intake` for safe offsets when its timer commits. Overrides private names of Faust 0.15.3 and aiokafka
0.14.0, which are pinned, and `tests/contracts/test_faust_internals.py` fails when they change.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import faust
from aiokafka.consumer.fetcher import FetchResult
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from schemas import failpoints
from streams import metrics

log = logging.getLogger(__name__)

_NO_ROOM_S = 0.5
_POLL_S = 1.0
_PARTIAL_POLL_S = 0.02
_PREFETCH_BACKOFF_S = 0.005
_SEEK_AGAIN_S = 0.1


class Intake(Protocol):
    """Who takes the runs: says when there is room, and which offsets are safe."""

    @property
    def room(self) -> asyncio.Event:
        """Set when there may be room again."""

    @property
    def safe(self) -> Mapping[TP, int]:
        """The next offset to commit of each partition."""

    def has_room(self, topic: str) -> bool:
        """Whether records of this topic may be fetched now."""

    def give_back(self) -> None:
        """Flow stops: forget what has not begun."""

    async def settle(self) -> None:
        """Wait, within a bound, until what has begun is safe; then nothing more may become safe."""

    def forget(self) -> None:
        """The partitions are gone: drop their offsets."""


class RunApp(faust.App):
    """A Faust app over the run transport. `intake` must be set before it starts."""

    intake: Intake
    max_run = 500
    fetch_wait_ms = 500

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, TableManager=_NoTables, **settings)

    def _new_transport(self) -> driver.Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """None: Faust keeps tables in them, and there are no tables."""

    def run_topic(self, name: str) -> Any:
        """A channel whose events hold lists of `FetchedRecord`: one partition each, in offset order."""
        return self.topic(name, schema=_RunSchema())


class _NoTables(TableManager):
    """There are none, so nothing needs a second to register before the worker joins its group."""

    async def sleep(self, n: Any, **_: Any) -> None:  # noqa: ARG002 - Faust's signature
        await super().sleep(0)


class _RunSchema(faust.Schema):
    """Passes a run through untouched: decoding is the step's business."""

    def compile(self, app: Any, **_: Any) -> Any:
        create = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - Faust's signature
            return create(None, message.value, None, message)

        return decode


class _Consumer(driver.Consumer):
    """Fetches by room, delivers runs, commits what is safe, and settles before partitions go."""

    app: RunApp
    # The generation in which every position was set to the committed offset and has only been read on from there since.
    _positions_of: int | None = None

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self.app.intake.safe if topics is None or tp in topics or tp.topic in topics)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do without Faust's livelock detector: it compares unlike clocks, and fails on a position that is just being reset."""

    def _new_offset(self, tp: TP) -> int | None:
        return self.app.intake.safe.get(tp)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        failpoints.reach("worker.committing")
        committed: bool = await super()._commit_offsets(offsets, start_new_transaction)
        failpoints.reach("worker.committed")
        return committed

    def stop_flow(self) -> None:
        super().stop_flow()
        self.app.intake.give_back()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        # The stock method forgets the revoked partitions' acks before it commits. So stop, settle and commit first; and stop always, since
        # a member that had no partition is not stopped by Faust and would read before Faust seeks.
        self.stop_flow()
        metrics.REBALANCES.labels("revoke").inc()
        try:
            if self.assignment():
                self.app.flow_control.suspend()
                self.app.flow_control.clear()
                await self.app.intake.settle()
                await self.commit_safe()
        finally:
            self.app.intake.forget()
            await super().on_partitions_revoked(revoked)

    async def commit_safe(self) -> None:
        """Commit what is safe now. Faust's `commit` does nothing while the timer's is on its way, which knows less."""
        while self._commit_fut is not None:
            await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        metrics.REBALANCES.labels("assign").inc()
        await super().on_partitions_assigned(assigned, generation_id)

    async def _wait_next_records(self, timeout: float = _POLL_S) -> Any:  # noqa: ASYNC109 - Faust's signature
        """Fetch only for topics with room. Others stay in aiokafka's own bounded prefetch; nothing is paused and nothing dropped."""
        active, intake = self._get_active_partitions(), self.app.intake
        wanted = {tp for tp in active if intake.has_room(tp.topic)}
        if wanted:
            wait = timeout if len(wanted) == len(active) else _PARTIAL_POLL_S
            return await self._getmany(active_partitions=wanted, timeout=wait), active
        intake.room.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(intake.room.wait(), _NO_ROOM_S)
        return {}, active

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._drain_once()
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.transport.app.should_stop:
                raise

    async def _drain_once(self) -> None:
        """One fetch. Whatever is fetched and not delivered, a rebalance came between: the position is then taken back before reading on."""
        if not self.flow_active:
            self._positions_of = None
            await self.wait(self.can_resume_flow)
            return
        generation = self.app.consumer_generation_id
        if self._positions_of != generation and not await self._rewind(generation):
            return
        records, active = await self._wait_next_records()
        if not records:
            await asyncio.sleep(0)
            return
        for tp, fetched in records.items():
            if tp not in active or not await self._deliver(TP(tp.topic, tp.partition), fetched, generation):
                self._positions_of = None
                return

    async def _rewind(self, generation: int) -> bool:
        """Read on from the committed offsets. Nothing of this generation was delivered yet, and nothing older can be committed any more."""
        if not self.assignment():  # a spare member has nothing to seek
            self._positions_of = generation
            return True
        try:
            await self.perform_seek()
            never = [tp for tp in self.assignment() if not self._committed_offset[tp]]
            if never:  # the seek leaves those where they are
                await self._thread.seek_to_beginning(*map(driver.ensure_aiokafka_TP, never))
                self._read_offset.update(dict.fromkeys(never))
        except Exception as error:  # noqa: BLE001 - the assignment may have gone, or the coordinator; tried again until it works
            log.warning("cannot seek to the committed offsets yet: %r", error)
            await asyncio.sleep(_SEEK_AGAIN_S)
            return False
        self._positions_of = generation
        return True

    async def _deliver(self, tp: TP, fetched: list[Any], generation: int) -> bool:
        """Hand the runs over, in order; False if a rebalance came between."""
        wanted = self._read_offset[tp]  # the next offset; a seek sets it too, and what lies below was delivered before
        if wanted is not None and fetched[0].offset < wanted:
            fetched = [record for record in fetched if record.offset >= wanted]
        for start in range(0, len(fetched), self.app.max_run):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return False
            run = fetched[start : start + self.app.max_run]
            await self.wait_first(self.callback(_message(tp, run, generation)), self.suspend_flow.wait())
            self._read_offset[tp] = run[-1].offset + 1
        return True


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads committed records only, and does not let one backlogged topic delay the others' fetches."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - Faust has no setting for it
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        fetcher = self._consumer._fetcher  # noqa: SLF001 - nor aiokafka for these
        fetcher._prefetch_backoff = _PREFETCH_BACKOFF_S  # noqa: SLF001
        fetcher._fetch_max_wait_ms = self.transport.app.fetch_wait_ms  # noqa: SLF001 - fixed in Faust
        fetcher._records = _Fetched(fetcher._records)  # noqa: SLF001


class FetchedRecord(NamedTuple):
    """What aiokafka's own `ConsumerRecord` says. Making that one, a frozen dataclass, was the dearest step of a record's way."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class _Fetched(OrderedDict[Any, Any]):
    """aiokafka's answers that wait to be read, by partition: each is told to make our records."""

    def __setitem__(self, partition: Any, answer: Any) -> None:
        if isinstance(answer, FetchResult):
            answer._partition_records._consumer_record = _record  # noqa: SLF001
        super().__setitem__(partition, answer)


def _record(tp: Any, record: Any) -> FetchedRecord:
    return FetchedRecord(
        tp.topic,
        tp.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        record.headers,
    )


class _Transport(driver.Transport):
    Consumer = _Consumer


def _message(tp: TP, run: list[Any], generation: int) -> ConsumerMessage:
    last = run[-1]
    message = ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.timestamp / 1000,
        last.timestamp_type,
        None,
        None,
        run,
        None,
        0,
        0,
        tp,
        generation_id=generation,
    )
    message.tracked = True  # by the ledger: so the stream does not, and `wait_empty` has nothing to wait for
    return message
