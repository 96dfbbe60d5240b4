"""A worker on a cluster that trusts nobody: Faust and librdkafka log in with the same settings, and the documented ACLs suffice."""

import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from infra.access import Role, acls
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.support.deliveries import eventually
from tests.support.kafka import create_topics, delete_topics, read_topic
from tests.support.pipeline import CODEC, Outcomes, await_outcomes, publish, references, with_missing, worker_process
from tests.support.security import SecureKafka

pytestmark = pytest.mark.kafka

Door = Callable[[SecureKafka, str], KafkaConnection]
DOORS: dict[str, Door] = {
    "scram": lambda cluster, user: cluster.scram(user),
    "plain": lambda cluster, user: cluster.plain(user),
    "mutual-tls": lambda cluster, user: cluster.mutual(user),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_worker_does_all_its_work_with_the_documented_acls(
    secure_kafka: SecureKafka, door: Door, photos: list[Path], tmp_path: Path
) -> None:
    admin, topics = secure_kafka.scram("admin"), Topics(f"w{uuid.uuid4().hex[:10]}.")
    create_topics(admin, topics)
    secure_kafka.allow(
        [*acls(Role.WORKER, "worker", topics, topics.prefix), *acls(Role.PUBLISHER, "publisher", topics, topics.prefix)]
    )
    good = references(photos, 50)
    bad = with_missing(references(photos, 3), Random(0), share=1.0)
    busy = references([Path("/x")], 1)[0]
    settings = {"IMAGES_ROOTS": str(tmp_path / "photos"), "IMAGES_PORTS": "1", "IMAGES_EXTRA_NETWORKS": "127.0.0.0/8"}
    with (
        Publisher(door(secure_kafka, "publisher"), CODEC, topics) as publisher,
        worker_process(
            door(secure_kafka, "worker"), topics, f"{topics.prefix}group", tmp_path / "log", settings
        ) as worker,
    ):
        publish(publisher, [*good, *bad])
        publisher.publish(type(busy)(id=busy.id, uri="http://127.0.0.1:1/refused.jpg")).result(30)
        worker.start()
        await_outcomes(admin, topics, [*good, *bad])
        # The refused connection goes to the first retry topic, and is forwarded and refused again: all that a worker writes.
        retries = list(topics.retries)
        eventually(lambda: bool(read_topic(admin, retries[1])), "a record on the second retry topic", 60, pause_s=0.5)
        assert worker.end(signal.SIGTERM) == 0
    outcomes = Outcomes.read(admin, topics)
    outcomes.check([*good, *bad])
    delete_topics(admin, [topic.name for topic in topics.catalogue()])


def test_a_worker_with_a_wrong_password_ends_with_one_clear_line(secure_kafka: SecureKafka, tmp_path: Path) -> None:
    topics = Topics("nowhere.")
    with worker_process(
        secure_kafka.scram("worker", "wrong-one"), topics, "nowhere.group", tmp_path / "log", {}
    ) as worker:
        worker.start()
        assert worker.died() == 2
    said = (tmp_path / "log").read_text()
    assert "sasl.password" in said
    assert "wrong-one" not in said
    assert "Traceback" not in said
