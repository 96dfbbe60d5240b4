"""What replays say without telling anybody: kept for who asks for that version, and never an image's outcome."""

from dataclasses import replace
from datetime import timedelta

from schemas.moments import to_us
from sinks.store import SqlResultStore
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.stored import Gone, StoredImage
from tests.support.stores import (
    ACME,
    START,
    Clock,
    Log,
    batch,
    completion,
    deletion,
    ids,
    image,
    loss,
    silently,
    submission,
)


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
