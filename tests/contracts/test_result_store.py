"""What the result store keeps, on SQLite and on a real PostgreSQL: what is written is read, by its tenant alone."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schemas.records import DetectParameters, Lane
from sinks.base import Extent
from sinks.store import SqlResultStore
from sinks.store_base import InvalidCursorError
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.store_fold import Advance
from sinks.store_positions import SupersededError
from sinks.store_records import Place
from sinks.store_upkeep import clear
from sinks.store_writes import StoreWriter, UnstorableError
from sinks.stored import Gone, ImageStatus, StoredImage
from tests.support.stores import (
    ACME,
    ONLINE,
    OTHER,
    START,
    START_US,
    Clock,
    Log,
    batch,
    changes,
    completion,
    deletion,
    ids,
    image,
    loss,
    redriven,
    submission,
    taken,
)


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
