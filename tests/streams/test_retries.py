"""The retry forwarder on a real Kafka: not before its time, never lost, and what cannot be read is dead-lettered."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, Reason
from schemas.records import DeadLetter, ImageRef, Lane
from schemas.topics import Topics
from streams.retries import ForwarderPolicy, RetryForwarder
from streams.retry_headers import Headers, Origin, RetryState
from tests.support.data import ROOT
from tests.support.kafka import read_topic

pytestmark = pytest.mark.kafka

HERE = Origin("images.online", 2, 9, 1_000)


@dataclass(slots=True)
class Clock:
    ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def forwarder(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, group: str, clock: Clock
) -> Iterator[RetryForwarder]:
    forwarder = RetryForwarder(connection, publisher, codec, ForwarderPolicy(group=group), now_ms=clock)
    yield forwarder
    forwarder.close()


def put(publisher: Publisher, topic: str, value: bytes | None, headers: Headers, key: bytes = b"cam") -> None:
    publisher.send(topic, key, value, lambda error, _: None, headers)
    publisher.flush(30)


def put_ref(publisher: Publisher, codec: Codec, ref: ImageRef, now_ms: int) -> tuple[str, Headers]:
    step = RetryState.from_headers([("trace", b"1")], HERE).next(Reason.FETCH_TIMEOUT, now_ms, 0, publisher.topics)
    assert step is not None
    put(publisher, step[0], codec.encode(ref), step[1])
    return step


def poll_until(forwarder: RetryForwarder, done: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        forwarder.poll(0.1)


def poll_for(forwarder: RetryForwarder, count: int, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    forwarded = 0
    while forwarded < count:
        assert time.monotonic() < deadline, f"{forwarded} of {count} forwarded"
        forwarded += forwarder.poll(0.1)


def held(forwarder: RetryForwarder) -> int:
    return sum(len(held.messages) for held in forwarder._held.values())


def test_a_record_waits_until_it_is_due_and_goes_back_to_its_own_lane_unchanged(
    forwarder: RetryForwarder,
    publisher: Publisher,
    codec: Codec,
    topics: Topics,
    connection: KafkaConnection,
    clock: Clock,
) -> None:
    refs = [ImageRef(id="a", uri="s3://b/a", lane=Lane.BULK), ImageRef(id="b", uri="s3://b/b")]
    headers, _ = (put_ref(publisher, codec, ref, clock.ms)[1] for ref in refs)
    poll_until(forwarder, lambda: held(forwarder) == 2)
    clock.ms += 9_999
    assert forwarder.poll(0) == 0
    clock.ms += 1
    assert forwarder.poll(0) == 2
    (bulk,), (online,) = read_topic(connection, topics.bulk), read_topic(connection, topics.online)
    assert (bulk.value(), bulk.key(), bulk.headers()) == (codec.encode(refs[0]), b"cam", list(headers))
    assert codec.decode(online.value(), ImageRef).id == "b"
    assert RetryState.from_headers(online.headers(), Origin("x", 0, 0, 0)).origin == HERE


def test_what_comes_after_a_pause_is_neither_lost_nor_doubled(
    forwarder: RetryForwarder,
    publisher: Publisher,
    codec: Codec,
    topics: Topics,
    connection: KafkaConnection,
    clock: Clock,
) -> None:
    clock.ms -= 60_000  # behind the broker's clock all the time: only the headers say when a record is due
    for count in range(1, 6):
        for n in range(400):
            ref = ImageRef(id=f"{count}-{n}", uri="s3://b/k")
            step = RetryState(origin=HERE).next(Reason.FETCH_FAILED, clock.ms, 0, topics)
            assert step is not None
            publisher.send(step[0], b"cam", codec.encode(ref), lambda error, _: None, step[1])
        publisher.flush(30)
        poll_until(forwarder, lambda: held(forwarder) > 0)
        forwarder.poll(0.1)
        clock.ms += 10_000
        poll_for(forwarder, 400)
    arrived = [codec.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.online)]
    assert len(arrived) == 2000
    assert set(arrived) == {f"{count}-{n}" for count in range(1, 6) for n in range(400)}


def test_an_unreadable_record_becomes_a_dead_letter_and_holds_up_nobody(
    forwarder: RetryForwarder,
    publisher: Publisher,
    codec: Codec,
    topics: Topics,
    connection: KafkaConnection,
    clock: Clock,
) -> None:
    first, *_ = topics.retries
    put(publisher, first, b"rubbish", [("retry.attempt", b"2"), ("x", None)])
    put(publisher, first, None, [])
    put_ref(publisher, codec, ImageRef(id="good", uri="s3://b/k"), clock.ms)
    clock.ms += 11_000
    poll_for(forwarder, 3)
    letters = [codec.decode(message.value(), DeadLetter) for message in read_topic(connection, topics.dead_letters)]
    assert [(letter.code, letter.stage, letter.attempts) for letter in letters] == [
        ("avro_unreadable", "retry", 3),
        ("avro_unreadable", "retry", 1),
    ]
    assert (letters[0].value, letters[0].key, letters[1].value) == (b"rubbish", b"cam", None)
    assert [(header.name, header.value) for header in letters[0].headers] == [("x", None)]
    assert letters[0].source_topic == first
    assert len(read_topic(connection, topics.online)) == 1


def test_an_unreadable_record_as_large_as_a_record_may_be_leaves_a_letter_without_it(
    forwarder: RetryForwarder,
    publisher: Publisher,
    codec: Codec,
    topics: Topics,
    connection: KafkaConnection,
    clock: Clock,
) -> None:
    put(publisher, next(iter(topics.retries)), os.urandom(999_950), [])
    clock.ms += 11_000
    poll_for(forwarder, 1)
    (message,) = read_topic(connection, topics.dead_letters)
    assert codec.decode(message.value(), DeadLetter).value is None


def test_no_header_can_hold_a_partition_up_for_longer_than_its_topics_delay(
    forwarder: RetryForwarder,
    publisher: Publisher,
    codec: Codec,
    topics: Topics,
    connection: KafkaConnection,
    clock: Clock,
) -> None:
    value = codec.encode(ImageRef(id="a", uri="s3://b/k"))
    put(publisher, next(iter(topics.retries)), value, [("retry.not.before", b"9" * 18), ("retry.attempt", b"1")])
    clock.ms += 20_000
    poll_for(forwarder, 1)
    assert len(read_topic(connection, topics.online)) == 1


class Shut(Codec):
    """A codec whose registry does not answer while `shut`."""

    def __init__(self, inner: Codec) -> None:
        self.inner = inner
        self.shut = True

    def decode(self, value: bytes | None, record: type) -> object:  # type: ignore[override]
        if self.shut:
            raise BusyError(Reason.SCHEMA_UNKNOWN, "registry is away", retry_after_s=5)
        return self.inner.decode(value, record)


def test_while_the_registry_is_away_records_wait(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics, group: str, clock: Clock
) -> None:
    shut = Shut(codec)
    forwarder = RetryForwarder(connection, publisher, shut, ForwarderPolicy(group=group), now_ms=clock)
    put_ref(publisher, codec, ImageRef(id="a", uri="s3://b/k"), clock.ms - 10_000)
    poll_until(forwarder, lambda: held(forwarder) == 1)
    shut.shut = False
    assert forwarder.poll(0) == 0
    clock.ms += 5_000
    assert forwarder.poll(0) == 1
    forwarder.close()
    assert read_topic(connection, topics.dead_letters) == []


_PROGRAM = """
import sys
from producers.publisher import Publisher
from schemas import failpoints
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from streams.retries import ForwarderPolicy, RetryForwarder

bootstrap, prefix, group = sys.argv[1:]
failpoints.arm("retry.forwarded", 1)
codec, connection = Codec(PackagedSchemas()), KafkaConnection(bootstrap=bootstrap)
with Publisher(connection, codec, Topics(prefix)) as publisher:
    policy = ForwarderPolicy(group=group, instance_id="slot")
    forwarder = RetryForwarder(connection, publisher, codec, policy, now_ms=lambda: 10**15)
    while True:
        forwarder.poll(0.1)
"""


@pytest.mark.kill
def test_killed_between_forwarding_and_commit_it_forwards_again_and_loses_nothing(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics, group: str, clock: Clock
) -> None:
    ids = {f"i{n}" for n in range(20)}
    for image_id in sorted(ids):
        put_ref(publisher, codec, ImageRef(id=image_id, uri="s3://b/k"), clock.ms)
    child = subprocess.run(
        [sys.executable, "-c", _PROGRAM, connection.bootstrap, topics.prefix, group], cwd=ROOT, check=False, timeout=60
    )
    assert child.returncode == -signal.SIGKILL
    clock.ms += 20_000
    policy = ForwarderPolicy(group=group, instance_id="slot")
    successor = RetryForwarder(connection, publisher, codec, policy, now_ms=clock)
    poll_for(successor, 20)
    successor.close()
    arrived = [codec.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.online)]
    assert set(arrived) == ids
    assert len(arrived) == 40, "the successor could not know that they were forwarded"


def test_what_was_committed_is_not_forwarded_again(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics, group: str, clock: Clock
) -> None:
    put_ref(publisher, codec, ImageRef(id="old", uri="s3://b/k"), clock.ms)
    clock.ms += 10_000
    first = RetryForwarder(connection, publisher, codec, ForwarderPolicy(group=group), now_ms=clock)
    poll_for(first, 1)
    first.close()
    put_ref(publisher, codec, ImageRef(id="new", uri="s3://b/k"), clock.ms)
    clock.ms += 10_000
    second = RetryForwarder(connection, publisher, codec, ForwarderPolicy(group=group), now_ms=clock)
    poll_for(second, 1)
    second.close()
    arrived = [codec.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.online)]
    assert sorted(arrived) == ["new", "old"]
