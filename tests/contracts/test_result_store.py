"""What the result store keeps, on SQLite and on a real PostgreSQL: what is written is read, by its tenant alone."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from schemas.errors import ConfigurationError
from schemas.records import DetectParameters, Lane
from sinks.base import Extent
from sinks.deliveries import Attempt, DeliveryState
from sinks.store import SqlResultStore
from sinks.store_base import ImageQuery, InvalidCursorError
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.store_fold import Advance
from sinks.store_policy import StorePolicy
from sinks.store_positions import SupersededError
from sinks.store_records import Place, to_us
from sinks.store_schema import check_migrated, current_version, migrate, needed_version
from sinks.store_tables import METADATA
from sinks.store_upkeep import clear
from sinks.store_writes import StoreWriter, UnstorableError
from sinks.stored import Gone, ImageStatus, StoredImage
from tests.support.postgres import fresh_database
from tests.support.stores import (
    ONLINE,
    OTHER,
    START,
    START_US,
    Log,
    batch,
    changes,
    completion,
    deletion,
    loss,
    redriven,
    silently,
    submission,
    taken,
)

ACME = ImageQuery(tenant="acme")


@dataclass
class Clock:
    moment: datetime = START

    def us(self) -> int:
        return to_us(self.moment)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One migrated database for the module, emptied before each test: making one takes longer than most tests."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"
    else:
        with fresh_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture
def policy(database: str) -> StorePolicy:
    return StorePolicy(database_url=database, keep_days=10, remember_days=20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(policy: StorePolicy, clock: Clock) -> Iterator[StoreWriter]:
    writer = StoreWriter(policy, clock.us)
    migrate(writer.engine)
    with writer.engine.begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
    yield writer
    writer.close()


@pytest.fixture
def log(writer: StoreWriter) -> Log:
    return Log(writer)


@pytest.fixture
def store(policy: StorePolicy, clock: Clock, writer: StoreWriter) -> Iterator[SqlResultStore]:
    store = SqlResultStore(policy, clock.us)
    yield store
    store.close()


@pytest.fixture
def queue(policy: StorePolicy, writer: StoreWriter) -> Iterator[SqlDeliveryQueue]:
    queue = SqlDeliveryQueue(policy)
    yield queue
    queue.close()


async def image(store: SqlResultStore, image_id: str = "i1", model: str | None = None) -> StoredImage:
    found = await store.image("acme", image_id, model)
    assert isinstance(found, StoredImage)
    return found


async def ids(store: SqlResultStore, query: ImageQuery = ACME, **changed: Any) -> list[str]:
    """Ids of all pages."""
    found: list[str] = []
    query = replace(query, **changed)
    while True:
        page = await store.images(query)
        assert len(page.items) <= query.limit
        found += [one.id for one in page.items]
        if page.next is None:
            return found
        query = replace(query, cursor=page.next)


async def test_an_image_comes_back_with_all_that_was_said(store: SqlResultStore, log: Log) -> None:
    log.write(submission(batch_id="b1"), completion(batch_id="b1"))
    found = await image(store)
    assert found.result is not None
    assert (found.status, found.uri, found.sha256, found.key) == ("completed", "file:///i1.jpg", "ab" * 32, "camera-1")
    assert (found.lane, found.batch_id, found.attributes) == (Lane.ONLINE, "b1", {"aisle": "7"})
    assert found.parameters == DetectParameters(confidence=0.3)
    assert (found.submitted_at, found.result.completed_at) == (START, START + timedelta(seconds=2))
    assert (found.result.id, found.result.model_name, found.result.model_digest) == ("r-i1", "codes", "d1")
    assert (found.result.width, found.result.height, found.result.timings.inference_ms) == (640, 480, 4.0)
    assert json.loads(found.result.detections_json)[0]["box"] == [1.0, 2.0, 3.0, 4.0]
    assert found.result.detections()[0].label == "dog"


async def test_the_status_is_where_workers_are(store: SqlResultStore, log: Log) -> None:
    log.write(submission("a", 0), submission("b", 1))
    assert {(await image(store, one)).status for one in "ab"} == {ImageStatus.QUEUED}
    log.write(taken(1))
    assert [(await image(store, one)).status for one in "ab"] == ["processing", "queued"]
    log.write(taken(0))  # another worker took over
    assert (await image(store, "a")).status == "queued"
    log.write(taken(2), loss("a", 0), completion("b", 1))
    assert [(await image(store, one)).status for one in "ab"] == ["failed", "completed"]
    failed = await image(store, "a")
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.stage, failed.failure.attempts) == ("image_corrupt", "decode", 1)
    log.write(redriven("a", 0, letter=0, at=7))
    assert (await image(store, "a")).status == "queued"


async def test_each_status_can_be_asked_for(store: SqlResultStore, log: Log) -> None:
    records = [submission(f"i{n}", n) for n in range(4)]
    log.write(*records, taken(3), completion("i0", 0), loss("i1", 1))
    for at, status in enumerate(("completed", "failed", "processing", "queued")):
        assert await ids(store, statuses=(ImageStatus(status),)) == [f"i{at}"]
    assert await ids(store, statuses=(ImageStatus.QUEUED, ImageStatus.FAILED)) == ["i3", "i1"]
    assert await ids(store, statuses=(ImageStatus.QUEUED, ImageStatus.PROCESSING)) == ["i3", "i2"]


async def test_nothing_is_read_across_tenants(store: SqlResultStore, log: Log, queue: SqlDeliveryQueue) -> None:
    other: dict[str, Any] = {"tenant": "other", "batch_id": "b1"}
    log.write(submission(batch_id="b1"), completion(batch_id="b1"), submission(**other), completion(id="rx", **other))
    log.write(submission("foreign", **other), batch("b1", images=1, callback="https://a.test/"), batch("b2"))
    log.write(deletion("gone", tenant="other"))
    assert (await image(store)).result.id == "r-i1"  # type: ignore[union-attr]
    assert await store.image("acme", "foreign") is None
    assert await store.image("acme", "gone") is None
    assert await ids(store, labels=("dog",)) == ["i1"]
    assert [one.id for one in (await store.batch_images("acme", "b1")).items] == ["i1"]
    assert (await store.batch("acme", "b1")).completed == 1  # type: ignore[union-attr]
    assert await store.batch("other", "b2") is None
    assert (await queue.deliveries("other")).items == ()
    log.write(deletion("foreign"))
    assert isinstance(await store.image("other", "foreign"), StoredImage)


@pytest.mark.parametrize("limit", [1, 2, 7, 200])
async def test_pages_hold_each_image_once_newest_first(store: SqlResultStore, log: Log, limit: int) -> None:
    records = [submission(f"i{n:02}", n // 3) for n in range(20)]  # three of a moment: ids decide
    log.write(*records)
    wanted = sorted((f"i{n:02}" for n in range(20)), key=lambda one: (int(one[1:]) // 3, one), reverse=True)
    assert await ids(store, limit=limit) == wanted


async def test_a_page_that_was_begun_does_not_move_when_images_arrive(store: SqlResultStore, log: Log) -> None:
    log.write(*(submission(f"i{n}", n) for n in range(4)))
    first = await store.images(replace(ACME, limit=2))
    log.write(submission("new", 9))
    rest = await store.images(replace(ACME, limit=2, cursor=first.next))
    assert [one.id for one in (*first.items, *rest.items)] == ["i3", "i2", "i1", "i0"]


async def test_filters_by_label_and_score_look_at_the_newest_result(store: SqlResultStore, log: Log) -> None:
    log.write(
        completion("i0", 0, scores={"dog": 0.9, "cat": 0.2}),
        completion("i1", 1, scores={"dog": 0.4}),
        completion("i2", 2, scores={}),
        completion("i3", 3, scores={"cat": 0.8}),
        submission("i4", 4),
    )
    assert await ids(store, labels=("dog",)) == ["i1", "i0"]
    assert await ids(store, labels=("dog",), min_score=0.5) == ["i0"]
    assert await ids(store, labels=("dog", "cat"), limit=1) == ["i3", "i1", "i0"]
    assert await ids(store, labels=("dog", "cat", "dog"), min_score=0.8) == ["i3", "i0"]
    assert await ids(store, min_score=0.85) == ["i0"]
    assert await ids(store, labels=("cow",)) == []
    log.write(completion("i0", 0, after_s=9, id="again", scores={"cow": 0.5}))
    assert await ids(store, labels=("dog",)) == ["i1"]
    assert await ids(store, labels=("cow",)) == ["i0"]


async def test_filters_by_camera_time_batch_and_model(store: SqlResultStore, log: Log) -> None:
    log.write(
        completion("i0", 0, key="door", batch_id="b1"),
        completion("i1", 1, key="gate", model_version="2"),
        completion("i2", 2, key="door", model_name="other"),
    )
    assert await ids(store, keys=("door",)) == ["i2", "i0"]
    assert await ids(store, keys=("door", "gate"), limit=2) == ["i2", "i1", "i0"]
    assert await ids(store, since=START + timedelta(seconds=1)) == ["i2", "i1"]
    assert await ids(store, until=START + timedelta(seconds=1)) == ["i0"]
    assert await ids(store, batch_id="b1") == ["i0"]
    assert await ids(store, model="codes") == ["i1", "i0"]
    assert await ids(store, model="codes@2") == ["i1"]
    assert await ids(store, keys=("door",), labels=("dog",), model="codes@1", statuses=(ImageStatus.COMPLETED,)) == [
        "i0"
    ]


async def test_silent_results_are_seen_by_who_asks_for_their_version_alone(store: SqlResultStore, log: Log) -> None:
    log.write(batch("b1", images=3), *(submission(f"i{n}", n, batch_id="b1") for n in range(3)))
    log.write(completion("i0", 0, batch_id="b1"), loss("i1", 1, batch_id="b1"))
    before = [await store.image("acme", f"i{n}") for n in range(3)]
    log.write(*(silently(f"i{n}", n, 60, id=f"s{n}", model_version="2", batch_id="b1") for n in (0, 1)))
    log.write(silently("i0", 0, 90, id="s0-newer", model_version="2", batch_id="b1", detections="[]"))
    assert [await store.image("acme", f"i{n}") for n in range(3)] == before
    found = await store.batch("acme", "b1")
    assert found is not None
    assert (found.completed, found.failed, found.queued) == (1, 1, 1)
    assert (
        await ids(store, labels=("dog",))
        == await ids(store, model="codes@1")
        == await ids(store, model="codes")
        == ["i0"]
    )
    as_of = await store.image("acme", "i1", "codes@2")
    assert isinstance(as_of, StoredImage)
    assert as_of.result is not None
    assert (as_of.status, as_of.failure, as_of.result.id, as_of.sha256) == ("completed", None, "s1", "ab" * 32)
    assert (as_of.result.model_version, as_of.result.width) == ("2", 640)
    newer = await store.image("acme", "i0", "codes@2")
    assert isinstance(newer, StoredImage)
    assert newer.result is not None
    assert (newer.result.id, newer.result.detections_json) == ("s0-newer", "[]")
    assert await store.image("acme", "i0", "codes@1") == before[0]
    assert await store.image("acme", "i2", "codes@2") is None
    assert await store.image("other", "i0", "codes@2") is None
    page = await store.batch_images("acme", "b1", model="codes@2")
    assert [one.result.id for one in page.items if one.result] == ["s0-newer", "s1"]
    page = await store.images(replace(ACME, model="codes@2", limit=1))
    assert [one.result.id for one in page.items if one.result] == ["s1"]
    assert await ids(store, model="codes@2", limit=1) == ["i1", "i0"]
    assert await ids(store, model="codes@2", labels=("dog",)) == ["i0"], "labels are the newest result's"


async def test_an_image_of_which_only_a_replay_spoke_is_unknown(
    store: SqlResultStore, log: Log, queue: SqlDeliveryQueue
) -> None:
    log.write(batch("b1", images=1, callback="https://a.test/"), silently(batch_id="b1", id="s", model_version="2"))
    assert await store.image("acme", "i1") is None
    assert await store.image("acme", "i1", "codes@2") is None
    assert await ids(store) == await ids(store, model="codes@2") == []
    assert not (await store.batch_images("acme", "b1")).items
    found = await store.batch("acme", "b1")
    assert found is not None
    assert (found.queued, found.completed, found.status) == (0, 0, "running")
    assert (await queue.deliveries("acme")).items == ()
    assert not await store.models()
    assert (await store.pace()).throughput_per_s == 0
    log.write(submission(batch_id="b1"), completion(batch_id="b1"))
    assert (await image(store)).result.id == "r-i1"  # type: ignore[union-attr]
    assert (await image(store, model="codes@2")).result.id == "s"  # type: ignore[union-attr]
    assert (await queue.deliveries("acme")).items != ()


async def test_a_silent_result_becomes_the_outcome_when_users_get_the_same(store: SqlResultStore, log: Log) -> None:
    log.write(completion(id="r1"), silently(after_s=5, id="r2", model_version="2"))
    assert (await image(store)).result.id == "r1"  # type: ignore[union-attr]
    log.write(completion(after_s=9, id="r2", model_version="2"))
    found = await image(store)
    assert found.result is not None
    assert (found.result.id, found.result.completed_at) == ("r2", START + timedelta(seconds=9))
    log.write(silently(after_s=99, id="r2", model_version="2"), silently(after_s=99, id="r1"))
    assert await image(store) == found


async def test_what_was_deleted_or_has_expired_is_not_brought_back_by_a_replay(
    store: SqlResultStore, log: Log, clock: Clock
) -> None:
    log.write(completion("i1"), silently("i1", id="s"), completion("i2"))
    log.write(deletion("i1"))
    clock.moment = START + timedelta(days=11)
    log.writer.sweep()
    log.write(*(silently(one, id="s", model_version="2", submitted_us=to_us(clock.moment)) for one in ("i1", "i2")))
    for one, reason in (("i1", "deleted"), ("i2", "expired")):
        for model in (None, "codes@2"):
            gone = await store.image("acme", one, model)
            assert isinstance(gone, Gone)
            assert gone.reason == reason


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "bnVsbA", "WzEsMl0", "W10", "e30", "A" * 5000, "\N{SNOWMAN}", "WzEsInhcdTAwMDAiXQ", "WzEsIlx1ZDgwMCJd"],
)
async def test_a_strange_cursor_is_refused(store: SqlResultStore, queue: SqlDeliveryQueue, cursor: str) -> None:
    for ask in (
        lambda: store.images(replace(ACME, cursor=cursor)),
        lambda: store.batch_images("acme", "b1", cursor=cursor),
        lambda: queue.deliveries("acme", cursor=cursor),
    ):
        with pytest.raises(InvalidCursorError):
            await ask()


@pytest.mark.parametrize("strange", ["\0", "a\0b", "\ud800", "'; DROP TABLE images; --", "%", "x" * 10_000])
async def test_strange_words_find_nothing_and_break_nothing(store: SqlResultStore, log: Log, strange: str) -> None:
    log.write(completion())
    assert await store.image("acme", strange) is None
    assert await store.batch("acme", strange) is None
    assert (await store.batch_images("acme", strange)).items == ()
    for query in (
        replace(ACME, labels=(strange,)),
        replace(ACME, keys=(strange,)),
        replace(ACME, batch_id=strange),
        replace(ACME, model=strange),
    ):
        assert await ids(store, query) == []
    assert await ids(store) == ["i1"]


async def test_batches_count_and_complete(store: SqlResultStore, log: Log) -> None:
    log.write(batch("b1"), *(submission(f"i{n}", n, batch_id="b1") for n in range(4)))
    found = await store.batch("acme", "b1")
    assert found is not None
    assert (found.status, found.images, found.queued) == ("receiving", None, 4)
    log.write(batch("b1", images=4), taken(1), completion("i1", 1, batch_id="b1"), loss("i2", 2, batch_id="b1"))
    found = await store.batch("acme", "b1")
    assert found is not None
    assert (found.status, found.queued, found.processing, found.completed, found.failed) == ("running", 1, 1, 1, 1)
    log.write(deletion("i3"), completion("i0", 0, batch_id="b1"))
    found = await store.batch("acme", "b1")
    assert found is not None
    assert (found.status, found.completed, found.failed, found.gone) == ("completed", 2, 1, 1)
    first = await store.batch_images("acme", "b1", limit=2)
    rest = await store.batch_images("acme", "b1", limit=2, cursor=first.next)
    assert [one.id for one in (*first.items, *rest.items)] == ["i0", "i1", "i2"]
    assert rest.next is None


async def test_a_batch_is_known_by_its_images_alone(store: SqlResultStore, log: Log) -> None:
    log.write(completion(batch_id="b9"))
    found = await store.batch("acme", "b9")
    assert found is not None
    assert (found.images, found.completed, found.created_at, found.status) == (None, 1, START, "receiving")


async def test_what_was_deleted_stays_deleted(store: SqlResultStore, log: Log, writer: StoreWriter) -> None:
    log.write(submission(), completion())
    log.write(deletion())
    assert await image_or_gone(store) == Gone(reason="deleted", at=START + timedelta(hours=1))
    log.write(submission(), completion(), loss())  # a replay
    assert (await image_or_gone(store)).reason == "deleted"
    assert await ids(store) == await ids(store, labels=("dog",)) == []
    clear(writer.engine)
    log.at.clear()
    log.write(completion(), submission())  # a rebuild from a log that has forgotten the deletion
    assert (await image_or_gone(store)).reason == "deleted"


async def image_or_gone(store: SqlResultStore) -> Gone:
    found = await store.image("acme", "i1")
    assert isinstance(found, Gone)
    return found


async def test_old_images_expire_and_are_known_to_have(store: SqlResultStore, log: Log, clock: Clock) -> None:
    log.write(submission(batch_id="b1"), completion(batch_id="b1"), batch("b1", images=1))
    log.write(submission("later", 3600))
    clock.moment = START + timedelta(days=10, seconds=1)
    assert (await image_or_gone(store)).reason == "expired"  # before anybody has swept
    assert await ids(store) == ["later"]
    assert not (await store.batch_images("acme", "b1")).items
    assert log.writer.sweep()
    assert not log.writer.sweep()
    assert (await image_or_gone(store)).reason == "expired"
    assert (await store.batch("acme", "b1")).status == "completed"  # type: ignore[union-attr]
    clock.moment += timedelta(days=31)
    log.writer.sweep()
    assert await store.image("acme", "i1") is None


async def test_a_new_word_about_an_expired_image_brings_it_back(store: SqlResultStore, log: Log, clock: Clock) -> None:
    log.write(completion())
    clock.moment = START + timedelta(days=11)
    assert log.writer.sweep()
    log.write(submission(seen_us=clock.us()))
    assert (await image(store)).status == "queued"


async def test_positions_move_with_the_rows_or_not_at_all(store: SqlResultStore, log: Log) -> None:
    log.write(submission(), partition=ONLINE)
    assert await store.positions() == {ONLINE: 1}
    assert await store.caught_up({ONLINE: 1})
    assert not await store.caught_up({ONLINE: 2})
    assert not await store.caught_up({ONLINE: 1, OTHER: 1})
    stale = Advance(ONLINE, 0, 5, START_US)
    with pytest.raises(SupersededError) as caught:
        log.writer.write(changes(submission("other", 3), advances=(stale,)))
    assert caught.value.partitions == {ONLINE}
    assert await store.image("acme", "other") is None


async def test_a_store_that_was_cleared_is_read_anew(store: SqlResultStore, log: Log) -> None:
    log.write(submission(), partition=ONLINE)
    clear(log.writer.engine)
    assert await ids(store) == []
    with pytest.raises(SupersededError):
        log.write(submission("i2", 1), partition=ONLINE)
    assert log.writer.open(ONLINE, Extent("t1", 0, 2)) == 0


async def test_a_topic_that_was_made_anew_is_read_from_its_start(store: SqlResultStore, log: Log) -> None:
    waiting, done = submission("a", 0), submission("b", 1)
    log.write(waiting, done, completion("b", 1), taken(2), partition=ONLINE)
    assert log.writer.open(ONLINE, Extent("t1", 0, 9)) == 4
    assert log.writer.open(ONLINE, Extent("t1", 6, 9)) == 6  # retention was faster
    assert log.writer.open(ONLINE, Extent("t1", 0, 5)) == 5  # records were lost
    assert log.writer.open(ONLINE, Extent("t2", 1, 3)) == 1
    assert await store.taken() == {}
    lost = await image(store, "a")
    assert (lost.status, lost.failure.code) == ("failed", "record_lost")  # type: ignore[union-attr]
    assert (await image(store, "b")).status == "completed"
    log.write(submission("a", 0, source=Place(ONLINE.topic, 0, 9)))
    assert (await image(store, "a")).status == "queued"


async def test_values_that_the_database_refuses_are_told_apart(log: Log) -> None:
    with pytest.raises(UnstorableError):
        log.write(submission(source=Place(ONLINE.topic, 0, 1 << 70)))
    log.write(submission())


async def test_models_and_pace(store: SqlResultStore, log: Log, clock: Clock) -> None:
    log.write(*(completion(f"i{n}", 0, after_s=(n + 1) / 10) for n in range(100)))
    log.write(completion("x", 20, model_version="2"))
    log.write(completion("i1", 0, after_s=0.2))  # again
    seen = await store.models()
    assert [(one.name, one.version, one.digest) for one in seen] == [("codes", "2", "d1"), ("codes", "1", "d1")]
    assert seen[1].first_seen_at == START + timedelta(seconds=0.1)
    clock.moment = START + timedelta(seconds=30)
    pace = await store.pace(60)
    assert pace.throughput_per_s == pytest.approx(101 / 60)
    assert pace.p50_ms == pytest.approx(5_000, rel=0.06)
    assert pace.p99_ms == pytest.approx(9_900, rel=0.06)
    clock.moment += timedelta(minutes=5)
    assert await store.pace(60) == replace(pace, throughput_per_s=0.0, p50_ms=None, p95_ms=None, p99_ms=None)


async def test_how_far_behind(store: SqlResultStore, log: Log, clock: Clock) -> None:
    assert await store.behind_s() is None
    log.write(submission())
    clock.moment = START + timedelta(seconds=7)
    assert await store.behind_s() == 7.0


async def test_a_delivery_is_made_once_when_a_batch_is_complete(
    log: Log, queue: SqlDeliveryQueue, clock: Clock
) -> None:
    called = batch("b1", images=2, callback="https://user@Example.test:8443/hook?x=1")
    log.write(submission("a", batch_id="b1"), completion("a", batch_id="b1"), batch("quiet", images=1))
    log.write(called, completion("c", batch_id="quiet"))
    assert await queue.claim(START, 30) is None
    log.write(loss("b", 4, batch_id="b1"))
    log.write(completion("b", 4, batch_id="b1"), called)
    claimed = await queue.claim(START, 30)
    assert claimed is not None
    assert (claimed.tenant, claimed.batch_id, claimed.attempt) == ("acme", "b1", 1)
    assert (claimed.url, claimed.receiver) == (called.callback, "example.test:8443")
    assert claimed.finished_at == START + timedelta(seconds=4)
    assert await queue.claim(START, 30) is None
    assert await queue.settle(claimed, Attempt(at=START, status=204, duration_ms=5.0), None)
    clear(log.writer.engine)
    log.at.clear()
    log.write(called, completion("a", batch_id="b1"), completion("b", 4, batch_id="b1"))
    assert await queue.claim(START + timedelta(days=1), 30) is None, "a rebuild tells nobody twice"


async def test_deliveries_are_claimed_by_one_and_tried_again(
    log: Log, queue: SqlDeliveryQueue, policy: StorePolicy
) -> None:
    deliver(log, "b1")
    other = SqlDeliveryQueue(policy)
    first, second = await asyncio.gather(queue.claim(START, 30), other.claim(START, 30))
    other.close()
    claimed = first or second
    assert claimed is not None
    assert not (first and second)
    later = START + timedelta(seconds=31)
    again = await queue.claim(later, 30)
    assert again is not None
    assert not await queue.settle(claimed, Attempt(at=later, status=200), None), "its claim has run out"
    due = later + timedelta(minutes=1)
    assert await queue.settle(again, Attempt(at=later, status=503, error="http_503"), due)
    assert await queue.claim(due - timedelta(seconds=1), 30) is None
    last = await queue.claim(due, 30)
    assert last is not None
    assert last.attempt == 2
    assert await queue.settle(last, Attempt(at=due, error="timeout"), None)
    assert await queue.claim(due + timedelta(days=1), 30) is None
    (told,) = (await queue.deliveries("acme")).items
    assert (told.state, told.next_attempt_at) == (DeliveryState.FAILED, None)
    assert [(attempt.status, attempt.error) for attempt in told.attempts] == [(503, "http_503"), (None, "timeout")]


async def test_busy_tenants_and_receivers_are_left_alone(log: Log, queue: SqlDeliveryQueue) -> None:
    deliver(log, "b1", "https://slow.test/a")
    deliver(log, "b2", "https://fast.test/a")
    claimed = await queue.claim(START, 30, busy_receivers={("acme", "slow.test")})
    assert claimed is not None
    assert claimed.batch_id == "b2"
    assert await queue.claim(START, 30, busy_tenants={"acme"}) is None
    assert await queue.claim(START, 30, busy_receivers={("other", "slow.test")}) is not None


async def test_the_log_of_deliveries_comes_in_pages(log: Log, queue: SqlDeliveryQueue, clock: Clock) -> None:
    for n in range(5):
        clock.moment = START + timedelta(seconds=n // 2)
        deliver(log, f"b{n}")
    found, cursor = [], None
    while True:
        page = await queue.deliveries("acme", limit=2, cursor=cursor)
        found += [one.batch_id for one in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert found == ["b4", "b3", "b2", "b1", "b0"]
    assert [one.batch_id for one in (await queue.deliveries("acme", "b3")).items] == ["b3"]


def deliver(log: Log, batch_id: str, url: str = "https://a.test/hook") -> None:
    image_id = f"i-{batch_id}"
    log.write(batch(batch_id, images=1, callback=url), completion(image_id, id=image_id, batch_id=batch_id))


def test_migrations_make_the_tables_that_the_code_has(writer: StoreWriter) -> None:
    with writer.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    assert current_version(writer.engine) == needed_version()
    assert not migrate(writer.engine)


def test_a_newer_release_s_database_is_refused(writer: StoreWriter) -> None:
    with writer.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        for ask in (migrate, check_migrated):
            with pytest.raises(ConfigurationError, match="newer release"):
                ask(writer.engine)
    finally:
        with writer.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": needed_version()})


async def test_readers_say_what_is_missing_until_somebody_has_migrated(tmp_path: Path) -> None:
    policy = StorePolicy(database_url=f"sqlite:///{tmp_path}/sub/store.db")
    store, writer = SqlResultStore(policy, lambda: START_US), StoreWriter(policy, lambda: START_US)
    assert "store migrate" in str(await store.check())
    migrate(writer.engine)
    assert await store.check() is None
    store.close()
    writer.close()


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://a/b", "redis://x"])
def test_urls_that_are_of_no_supported_database_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.database_url"):
        StoreWriter(StorePolicy(database_url=url), lambda: 0)
