"""Every bad input, case by case, through the whole pipeline on a real Kafka: one outcome each with a stable code, and no neighbour hurt."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.errors import Reason
from schemas.records import DeadLetter, DetectionResult, ImageRef, new_image_id
from schemas.topics import Topics
from tests.e2e.conftest import MakeWorker
from tests.support.deliveries import eventually
from tests.support.image_host import ImageHost, image_host
from tests.support.images import HEIGHT, WIDTH, corpus, encode, photograph, poisoned
from tests.support.kafka import read_topic
from tests.support.pipeline import CODEC, outcome_counter

pytestmark = pytest.mark.kafka

NEIGHBOURS = 3  # good images before each case, so that every batch mixes good and bad


@dataclass(frozen=True, slots=True)
class Expected:
    """A record's value, and what must come of it: the code of its dead letter or retry, or else the frame of its result."""

    name: str
    value: bytes | None
    code: Reason | None = None
    size: tuple[int, int] = (WIDTH, HEIGHT)
    retried: bool = False
    headers: Sequence[tuple[str, bytes]] = ()


def ref(name: str, uri: str, **fields: object) -> bytes:
    return CODEC.encode(replace(ImageRef(id=new_image_id(), uri=uri, key=name), **fields))  # type: ignore[arg-type]


def unreadable(good: bytes) -> Iterator[Expected]:
    for name, value in {
        "empty-value": b"",
        "json": b'{"id": "1"}',
        "wrong-magic": b"\x01" + good[1:],
        "short": good[:4],
        "truncated": good[:-7],
        "trailing": good + b"\0",
        "noise": bytes(range(255, 0, -1)),
        "another-record": CODEC.encode(DeadLetter(code="x", message="y" * 70, stage="z")),
    }.items():
        yield Expected(name, value, Reason.AVRO_UNREADABLE)
    yield Expected("tombstone", None, Reason.AVRO_UNREADABLE)
    yield Expected("unknown-id", good[:1] + (999).to_bytes(4, "big") + good[5:], Reason.SCHEMA_UNKNOWN)


def references(photo: Path, outside: Path) -> Iterator[Expected]:
    uri, now = photo.as_uri(), datetime.now(UTC)
    right = hashlib.sha256(photo.read_bytes()).hexdigest()
    yield Expected("no-id", ref("no-id", uri, id=""), Reason.RECORD_INVALID)
    yield Expected("no-uri", ref("no-uri", ""), Reason.RECORD_INVALID)
    yield Expected("late", ref("late", uri, deadline=now - timedelta(seconds=1)), Reason.DEADLINE_EXPIRED)
    yield Expected("in-time", ref("in-time", uri, deadline=now + timedelta(hours=1)))
    yield Expected("other-model", ref("other-model", uri, model="yolo99"), Reason.MODEL_UNKNOWN)
    yield Expected("this-model", ref("this-model", uri, model="fake"))
    yield Expected("wrong-sum", ref("wrong-sum", uri, sha256="0" * 64), Reason.IMAGE_HASH_MISMATCH)
    yield Expected("right-sum", ref("right-sum", uri, sha256=right))
    large = ref("too-large", uri, attributes={"note": "x" * 3000})
    # Its result does not fit, see PUBLISHER_MAX_RECORD_BYTES.
    yield Expected("too-large", large, Reason.RECORD_TOO_LARGE)
    yield Expected("ftp", ref("ftp", "ftp://host/a.jpg"), Reason.URI_UNSUPPORTED)
    yield Expected("outside", ref("outside", outside.as_uri()), Reason.URI_FORBIDDEN)
    yield Expected("dots", ref("dots", f"{photo.parent.as_uri()}/../{outside.name}"), Reason.URI_FORBIDDEN)


def hosted(host: ImageHost) -> Iterator[Expected]:
    for path, code in {
        "/photo.jpg": None,
        "/redirect": None,
        "/slow": None,
        "/status/404": Reason.IMAGE_NOT_FOUND,
        "/status/410": Reason.IMAGE_NOT_FOUND,
        "/status/403": Reason.IMAGE_FORBIDDEN,
        "/endless": Reason.IMAGE_TOO_LARGE,
        "/large": Reason.IMAGE_TOO_LARGE,
        "/empty": Reason.IMAGE_EMPTY,
        "/text": Reason.IMAGE_TYPE_UNSUPPORTED,
        "/gzip-bomb": Reason.IMAGE_TYPE_UNSUPPORTED,
        "/redirect-loop": Reason.FETCH_FAILED,
        "/redirect-private": Reason.URI_FORBIDDEN,
        "/redirect-file": Reason.URI_UNSUPPORTED,
    }.items():
        yield Expected(path, ref(path, host.url(path)), code)
    for path, code in {
        "/status/500": Reason.FETCH_FAILED,
        "/hung": Reason.FETCH_TIMEOUT,
        "/drip": Reason.FETCH_TIMEOUT,
        "/reset": Reason.FETCH_FAILED,
    }.items():
        yield Expected(path, ref(path, host.url(path)), code, retried=True)
    spent = [("retry.attempt", b"3"), ("retry.first.failure", b"1000")]
    yield Expected("spent", ref("spent", host.url("/status/500")), Reason.FETCH_FAILED, headers=spent)
    yield Expected("flaky", ref("flaky", host.url("/flaky/1")))  # 503 once: comes back from its retry topic


def files(directory: Path) -> Iterator[Expected]:
    for case in corpus(directory):
        yield Expected(case.name, ref(case.name, case.path.as_uri()), case.reason, (case.width, case.height))
    (directory / "poisoned.png").write_bytes(poisoned())
    yield Expected("poisoned", ref("poisoned", (directory / "poisoned.png").as_uri()), Reason.DETECTOR_FAILED)


def publish(publisher: Publisher, cases: Sequence[Expected], photo: Path) -> int:
    """Every case behind some good neighbours; returns how many records there are."""
    problems: list[object] = []

    def report(error: object, _: Message) -> None:
        problems.append(error)

    for case in cases:
        for at in range(NEIGHBOURS):
            name = f"neighbour-{at} of {case.name}"
            publisher.send(publisher.topics.online, name.encode(), ref(name, photo.as_uri()), report)
        publisher.send(publisher.topics.online, case.name.encode(), case.value, report, case.headers)
    publisher.flush(60)
    assert set(problems) == {None}
    return len(problems)


def by_key(messages: Sequence[Message]) -> dict[str, Message]:
    found = {message.key().decode(): message for message in messages}
    assert len(found) == len(messages), "two outcomes for one record"
    return found


def wrong(
    case: Expected, results: dict[str, Message], letters: dict[str, Message], retries: dict[str, Message]
) -> str | None:
    """What is wrong with a case's outcome, None if nothing."""
    places = {
        name: case.name in found for name, found in {"result": results, "letter": letters, "retry": retries}.items()
    }
    wanted = "retry" if case.retried else "letter" if case.code else "result"
    if case.name != "flaky" and places != {name: name == wanted for name in places}:
        return f"{case.name}: {places}"
    if wanted == "retry":
        return (
            None
            if dict(retries[case.name].headers())["retry.reason"].decode() == case.code
            else f"{case.name}: {retries[case.name].headers()}"
        )
    if wanted == "letter":
        letter = CODEC.decode(letters[case.name].value(), DeadLetter)
        right = (
            letter.code == case.code and letter.value == case.value and letter.attempts == 1 + 3 * bool(case.headers)
        )
        return None if right else f"{case.name}: {letter}"
    result = CODEC.decode(results[case.name].value(), DetectionResult)
    size = (result.image_width, result.image_height)
    return None if size == case.size and result.detections else f"{case.name}: {size}, {len(result.detections)} boxes"


def lag(connection: KafkaConnection, topics: Topics, group: str) -> int:
    consumer = Consumer({**connection.librdkafka(), "group.id": group, "log_level": 0})
    try:
        places = [TopicPartition(topics.online, p) for p in range(4)]
        committed = {place.partition: place.offset for place in consumer.committed(places, timeout=30)}
        return sum(
            consumer.get_watermark_offsets(place, timeout=30)[1] - max(committed[place.partition], 0)
            for place in places
        )
    finally:
        consumer.close()


async def test_each_bad_input_has_one_outcome_with_its_code(  # noqa: PLR0917 - fixtures
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
    group: str,
    tmp_path: Path,
) -> None:
    (outside := tmp_path / "outside.jpg").write_bytes(encode(photograph(), "JPEG"))
    async with image_host() as host:
        good = ref("good", photos[0].as_uri())
        cases = [
            *unreadable(good),
            *references(photos[0], outside),
            *hosted(host),
            *files(photos[0].parent / "corpus"),
        ]
        worker = make_worker(
            IMAGES_PORTS=str(host.port),
            IMAGES_EXTRA_NETWORKS="127.0.0.0/8",
            IMAGES_HOST_FAILURES="1000",
            IMAGES_MAX_BYTES="200000",
            IMAGES_TIMEOUTS_READ_S="4.0",
            IMAGES_TIMEOUTS_GRACE_S="4.0",
            PUBLISHER_MAX_RECORD_BYTES="3700",
            KAFKA_INSTANCE_ID="slot-0",
        )
        worker.start()
        await asyncio.to_thread(check, connection, topics, publisher, photos[1], cases, group)


def check(
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photo: Path,
    cases: Sequence[Expected],
    group: str,
) -> None:
    records = publish(publisher, cases, photo)
    retried = sum(case.retried for case in cases)
    with outcome_counter(connection, topics) as count:
        eventually(lambda: count() >= records - retried, "an outcome for every record", 120, pause_s=0.2)
    results, letters = (
        by_key(read_topic(connection, topics.detections)),
        by_key(read_topic(connection, topics.dead_letters)),
    )
    retries = by_key(read_topic(connection, f"{topics.prefix}images.retry.10s", at_least=retried + 1))

    problems = [problem for case in cases if (problem := wrong(case, results, letters, retries))]
    assert not problems, "\n".join(problems)
    neighbours = {f"neighbour-{at} of {case.name}" for case in cases for at in range(NEIGHBOURS)}
    assert neighbours <= set(results), "a bad image hurt a neighbour"
    assert set(results) | set(letters) | set(retries) == neighbours | {case.name for case in cases}
    eventually(lambda: lag(connection, topics, group) == 0, "the partitions moved on", 30, pause_s=0.2)
