"""TLS, SASL and ACLs on a real broker: right credentials work, wrong ones are clear errors, the documented ACLs suffice."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from infra.access import Role, acls
from infra.broker.local import LocalKafka
from infra.connections import check_connection
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.drift import DriftAlert, DriftBaseline
from schemas.errors import ConfigurationError
from schemas.models import ModelVersion
from schemas.records import DeadLetter, ImageRef
from schemas.rollouts import Rollout, Verdict
from schemas.topics import Topics
from streams.awaiting import Outcomes
from streams.dead_letters import DeadLetters, Filter
from streams.drift_alerts import DriftAlerts
from streams.drift_reading import ResultReader
from streams.drift_reference import publish_baseline
from streams.fold import Follower, Latest, read_to_end
from streams.judge_log import JudgeLog
from streams.rollout_ledger import Change, Known, RolloutLedger
from tests.support.deliveries import eventually
from tests.support.kafka import create_topics, delete_topics, read_topic
from tests.support.security import SecureKafka

_SILENT = logging.getLogger("silent")
_SILENT.disabled = True

pytestmark = pytest.mark.kafka


@pytest.fixture
def secure_topics(secure_kafka: SecureKafka) -> Iterator[Topics]:
    topics = Topics(prefix=f"s{uuid.uuid4().hex[:10]}.")
    create_topics(secure_kafka.scram("admin"), topics)
    yield topics
    delete_topics(secure_kafka.scram("admin"), [topic.name for topic in topics.catalogue()])


Door = Callable[[SecureKafka], KafkaConnection]


@pytest.mark.parametrize(
    "door", [lambda k: k.scram("worker"), lambda k: k.plain("worker"), lambda k: k.mutual("worker")]
)
def test_right_credentials_open_the_door(secure_kafka: SecureKafka, door: Door) -> None:
    check_connection(door(secure_kafka))


@pytest.mark.parametrize(
    ("door", "remedy"),
    [
        (lambda k: k.scram("worker", "wrong-one"), "sasl.password"),
        (lambda k: k.plain("worker", "wrong-one"), "sasl.password"),
        (lambda k: k.scram("nobody"), "sasl.username"),
        (lambda k: _with(k.scram("worker"), {"ssl.ca.location": str(k.files / "other-ca.pem")}), "ssl.ca.location"),
        (lambda k: _with(k.scram("worker"), {"security.protocol": "PLAINTEXT"}), "security.protocol"),
        (lambda k: _with(k.scram("worker"), {"sasl.mechanism": "PLAIN"}), "sasl.mechanism"),
        (
            lambda k: KafkaConnection(bootstrap=k.mutual("worker").bootstrap, security=_tls(k)),
            "ssl.certificate.location",
        ),
        (lambda k: KafkaConnection(bootstrap="127.0.0.1:1"), "kafka.bootstrap"),
        (lambda k: _with(k.scram("worker"), {"ssl.ca.location": "/nowhere"}), "ssl.ca.location"),
    ],
    ids=[
        "scram",
        "plain",
        "user",
        "authority",
        "plaintext",
        "mechanism",
        "no certificate",
        "closed port",
        "no such file",
    ],
)
def test_wrong_settings_are_one_clear_error(secure_kafka: SecureKafka, door: Door, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_connection(door(secure_kafka), timeout_s=30)
    assert remedy in str(caught.value)
    assert "wrong-one" not in str(caught.value)
    assert "did not answer within" not in str(caught.value)


def test_who_does_not_answer_is_given_up(private_kafka: LocalKafka) -> None:
    connection = KafkaConnection(bootstrap=private_kafka.bootstrap)
    private_kafka.pause()
    try:
        with pytest.raises(ConfigurationError, match="did not answer within 1 s"):
            check_connection(connection, timeout_s=1)
    finally:
        private_kafka.resume()


def _with(connection: KafkaConnection, security: dict[str, str]) -> KafkaConnection:
    return KafkaConnection(bootstrap=connection.bootstrap, security={**connection.security, **security})


def _tls(kafka: SecureKafka) -> dict[str, str]:
    return {"security.protocol": "SSL", "ssl.ca.location": str(kafka.ca)}


def test_a_write_without_permission_is_told_to_who_wrote(secure_kafka: SecureKafka, secure_topics: Topics) -> None:
    secure_kafka.allow(acls(Role.PUBLISHER, "publisher", secure_topics, "g"))
    errors = _write(secure_kafka.scram("publisher"), secure_topics.detections)
    assert [error.code() for error in errors] == [KafkaError.TOPIC_AUTHORIZATION_FAILED]


def test_who_may_write_nothing_cannot_be_an_idempotent_producer(
    secure_kafka: SecureKafka, secure_topics: Topics
) -> None:
    errors = _write(secure_kafka.scram("stranger"), secure_topics.online)
    assert {error.code() for error in errors} <= {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._FATAL}
    assert errors


def _write(connection: KafkaConnection, topic: str) -> list[KafkaError]:
    settings = {"enable.idempotence": True, "message.timeout.ms": 20000, "error_cb": lambda _: None, "logger": _SILENT}
    producer = Producer({**connection.librdkafka(), **settings})
    errors: list[KafkaError] = []
    producer.produce(topic, b"x", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(60) == 0
    return errors


def test_a_publisher_needs_no_more_than_its_acls(
    secure_kafka: SecureKafka, secure_topics: Topics, codec: Codec
) -> None:
    secure_kafka.allow(acls(Role.PUBLISHER, "publisher", secure_topics, "g"))
    with Publisher(secure_kafka.scram("publisher"), codec, secure_topics) as publisher:
        publisher.publish(ImageRef(id="a", uri="file:///a.jpg")).result(timeout=30)
    assert len(read_topic(secure_kafka.scram("admin"), secure_topics.online, at_least=1)) == 1


def test_a_worker_needs_no_more_than_its_acls(secure_kafka: SecureKafka, secure_topics: Topics, codec: Codec) -> None:
    group = secure_topics.prefix
    secure_kafka.allow(acls(Role.WORKER, "worker", secure_topics, group))
    connection = secure_kafka.scram("worker")
    with Publisher(connection, codec, secure_topics) as publisher:
        publisher.publish(ImageRef(id="a", uri="file:///a.jpg")).result(timeout=30)
    for topic in (secure_topics.online, *secure_topics.retries):
        assert _write(connection, topic) == [None]
        assert _read_in_group(connection, topic, f"{group}worker")
    for topic in (secure_topics.detections, secure_topics.dead_letters):
        assert _write(connection, topic) == [None]
        with pytest.raises(KafkaException, match="authorization failed"):
            _read_in_group(connection, topic, f"{group}worker")


def test_a_parquet_sink_needs_no_more_than_its_acls(secure_kafka: SecureKafka, secure_topics: Topics) -> None:
    group = secure_topics.prefix
    secure_kafka.allow(acls(Role.PARQUET, "parquet", secure_topics, group))
    connection = secure_kafka.scram("parquet")
    assert _write(secure_kafka.scram("admin"), secure_topics.detections) == [None]
    assert _read_in_group(connection, secure_topics.detections, f"{group}parquet")
    for topic, name in ((secure_topics.online, f"{group}parquet"), (secure_topics.detections, "another")):
        with pytest.raises(KafkaException, match="authorization failed"):
            _read_in_group(connection, topic, name)


def test_a_notifier_reads_without_joining_a_group(secure_kafka: SecureKafka, secure_topics: Topics) -> None:
    group = f"{secure_topics.prefix}notifier"
    secure_kafka.allow(acls(Role.NOTIFIER, "notifier", secure_topics, secure_topics.prefix))
    connection = secure_kafka.scram("notifier")
    assert _write(secure_kafka.scram("admin"), secure_topics.detections) == [None]
    assert read_topic(connection, secure_topics.detections, at_least=1, group=group)
    with pytest.raises(KafkaException, match="authorization failed"):
        _read_in_group(connection, secure_topics.detections, group)


def test_who_waits_for_outcomes_needs_no_more_than_its_acls(
    secure_kafka: SecureKafka, secure_topics: Topics, codec: Codec
) -> None:
    secure_kafka.allow(acls(Role.AWAITER, "awaiter", secure_topics, "sightstream"))
    connection = secure_kafka.scram("awaiter")
    with (
        Publisher(secure_kafka.scram("admin"), codec, secure_topics) as worker,
        Publisher(connection, codec, secure_topics) as publisher,
        Outcomes(connection, codec, secure_topics) as outcomes,
    ):
        marks = outcomes.marks()
        publisher.publish(ImageRef(id="a", uri="file:///a.jpg")).result(timeout=30)
        letter = codec.encode(DeadLetter(code="image_corrupt", message="no JPEG", stage="fetch", image_id="a"))
        worker.send(secure_topics.dead_letters, key=None, value=letter, on_delivery=lambda error, receipt: None)
        assert outcomes.wait({"a"}, marks, 30).failures == {"a": "image_corrupt"}


def test_who_redrives_needs_no_more_than_its_acls(
    secure_kafka: SecureKafka, secure_topics: Topics, codec: Codec
) -> None:
    secure_kafka.allow(acls(Role.REDRIVER, "redriver", secure_topics, "sightstream"))
    connection = secure_kafka.scram("redriver")
    original = codec.encode(ImageRef(id="a", uri="file:///a.jpg"))
    letter = DeadLetter(
        code="fetch_failed",
        message="refused",
        stage="fetch",
        image_id="a",
        source_topic=secure_topics.online,
        value=original,
    )
    with Publisher(secure_kafka.scram("admin"), codec, secure_topics) as worker:
        worker.send(
            secure_topics.dead_letters, key=None, value=codec.encode(letter), on_delivery=lambda error, receipt: None
        )
    letters = DeadLetters(connection, codec, secure_topics)
    with Publisher(connection, codec, secure_topics) as publisher:
        assert len(letters.redrive(letters.find(Filter()), publisher).sent) == 1
    assert [entry.redriven for entry in letters.find(Filter())] == [True]
    (again,) = read_topic(secure_kafka.scram("admin"), secure_topics.online, at_least=1)
    assert again.value() == original


def _read_in_group(connection: KafkaConnection, topic: str, group: str) -> bytes | None:
    """The first record of a topic, read as a member of the group and committed."""
    settings = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "logger": _SILENT}
    consumer = Consumer({**connection.librdkafka(), **settings})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(30)
        assert message is not None, f"nothing came from {topic}"
        if message.error():
            raise KafkaException(message.error())
        consumer.commit(message, asynchronous=False)
        value: bytes | None = message.value()
    finally:
        consumer.close()
    return value


def test_who_watches_drift_needs_no_more_than_its_acls(
    secure_kafka: SecureKafka, secure_topics: Topics, codec: Codec
) -> None:
    group = f"{secure_topics.prefix}drift"
    secure_kafka.allow(acls(Role.DRIFT, "awaiter", secure_topics, secure_topics.prefix))
    connection = secure_kafka.scram("awaiter")
    with Publisher(connection, codec, secure_topics) as publisher:
        publish_baseline(publisher, DriftBaseline(id="b"))
    baselines = Latest(DriftBaseline)
    read_to_end(Follower(connection, codec, {secure_topics.drift_baselines: baselines}, group), 60)
    assert baselines.get("b") is not None
    with ResultReader(connection, codec, secure_topics.detections, group) as results:
        results.begin(results.ends())
        stop = threading.Event()
        eventually(lambda: bool(results.read(10, 1.0, stop).ended), "an end is reached", 60)
    alert = DriftAlert(id="a", baseline_id="b", tenant="acme")
    assert DriftAlerts(connection, codec, secure_topics.drift, group).write([alert]) == [alert]
    with pytest.raises(ConfigurationError, match="may not write alerts"):
        DriftAlerts(secure_kafka.scram("stranger"), codec, secure_topics.drift, group).write([alert])


def test_who_judges_rollouts_needs_no_more_than_its_acls(
    secure_kafka: SecureKafka, secure_topics: Topics, codec: Codec
) -> None:
    group = f"{secure_topics.prefix}judge"
    secure_kafka.allow(acls(Role.JUDGE, "redriver", secure_topics, secure_topics.prefix))
    connection = secure_kafka.scram("redriver")
    ledger = RolloutLedger(connection, codec, secure_topics, group)
    versions, rollout = (ModelVersion(name="m", version="1"),), Rollout(id="r", name="m")
    ledger.change(lambda _: Change(rollout, versions, Verdict(rollout_id="r", name="m")))
    assert ledger.read() == Known({"m": rollout}, {"m@1": versions[0]})
    assert [verdict.rollout_id for verdict in ledger.verdicts()] == ["r"]
    with JudgeLog(connection, secure_topics, group) as records:
        records.read_from(records.partitions(), datetime.now(UTC))
        left = set(records.partitions())

        def read_on() -> bool:
            left.difference_update(each.partition for each in records.stretches(10, 1.0) if each.at_end)
            return not left

        eventually(read_on, "every end is reached", 60)
    with pytest.raises(ConfigurationError, match="may not change rollouts"):
        RolloutLedger(secure_kafka.scram("stranger"), codec, secure_topics, group).change(lambda _: Change(rollout))
