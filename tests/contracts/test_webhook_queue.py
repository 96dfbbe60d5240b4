"""What the store's database keeps of webhooks: one delivery a batch, claimed by one sender, with the log of its attempts."""

import asyncio
from datetime import timedelta

from sinks.deliveries import Attempt, DeliveryState
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.store_policy import StorePolicy
from sinks.store_upkeep import clear
from tests.support.stores import (
    START,
    Clock,
    Log,
    batch,
    completion,
    loss,
    submission,
)


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
