"""`sightstream publish` on a real Kafka: every image confirmed, killed and resumed, and back with its outcome."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer

from infra.commands.publish import command
from infra.settings import Settings
from producers.items import file_uri, from_path
from producers.publisher import Publisher
from producers.references import image_id
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import DeadLetter, DetectionResult, ImageRef, Lane
from schemas.topics import Topics
from tests.support.data import ROOT, shared_dir
from tests.support.kafka import read_topic

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of 80 photographs; without the real ones, of 80 files that are called so."""
    shared = shared_dir()
    if shared is not None and (shared / "datasets" / "coco-val-80" / "images").is_dir():
        return shared / "datasets" / "coco-val-80" / "images"
    directory = tmp_path_factory.mktemp("photographs")
    for n in range(80):
        (directory / f"{n:012}.jpg").write_bytes(b"\xff\xd8")
    return directory


@pytest.fixture
def publish(connection: KafkaConnection, topics: Topics, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*arguments: str, **settings: object) -> Result:
        values = {
            "kafka.bootstrap": connection.bootstrap,
            "kafka.prefix": topics.prefix,
            "state_dir": str(tmp_path / "state"),
            **settings,
        }
        return CliRunner().invoke(command, arguments, obj=Settings().overriding(values))

    return run


def expected(directory: Path, batch_id: str) -> list[str]:
    return [image_id(batch_id, from_path(path)) for path in sorted(directory.iterdir())]


def arrived(connection: KafkaConnection, codec: Codec, topic: str) -> list[ImageRef]:
    return [codec.decode(message.value(), ImageRef) for message in read_topic(connection, topic)]


def test_every_photograph_arrives_once_with_all_that_was_asked_for(
    publish: Callable[..., Result], photographs: Path, connection: KafkaConnection, codec: Codec, topics: Topics
) -> None:
    done = publish(
        *(str(photographs), "--batch-id", "b1", "--lane", "bulk", "--key-from", "parent", "--model", "shelf"),
        *("--confidence", "0.4", "--class", "0", "--class", "2", "--tenant", "acme", "--attribute", "site=7"),
        *("--deadline", "5m"),
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == "batch b1: 80 images published\n"
    refs = arrived(connection, codec, topics.bulk)
    assert sorted(ref.id for ref in refs) == sorted(expected(photographs, "b1"))
    ref = refs[0]
    assert (ref.batch_id, ref.lane, ref.key, ref.model, ref.tenant) == ("b1", Lane.BULK, "images", "shelf", "acme")
    assert (ref.parameters.classes, ref.attributes) == ((0, 2), {"site": "7"})
    assert ref.parameters.confidence == pytest.approx(0.4)
    assert ref.deadline is not None
    assert (ref.deadline - ref.submitted_at).total_seconds() == pytest.approx(300)
    assert [ref.uri for ref in refs] == sorted(ref.uri for ref in refs), "one key, one partition, one order"


@pytest.mark.kill
def test_killed_midway_and_resumed_nothing_is_missing_and_ids_are_the_same(
    photographs: Path, connection: KafkaConnection, codec: Codec, topics: Topics, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "SIGHTSTREAM_KAFKA_BOOTSTRAP": connection.bootstrap,
        "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
        "SIGHTSTREAM_STATE_DIR": str(tmp_path),
    }
    arguments = [sys.executable, "-m", "infra.cli", "publish", str(photographs), "--batch-id", "b1", "--rate", "60"]

    def run(failpoint: str | None, *more: str) -> "subprocess.CompletedProcess[str]":
        armed = {"SIGHTSTREAM_FAILPOINT": failpoint} if failpoint else {}
        return subprocess.run(
            [*arguments, *more],
            cwd=ROOT,
            env=environment | armed,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def confirmed() -> int:
        return int(json.loads((tmp_path / "publish" / "b1.json").read_text())["confirmed"])

    wanted = expected(photographs, "b1")
    assert run("feed.saved:1").returncode == -signal.SIGKILL
    first = confirmed()
    assert 0 < first < 80
    on_topic = [ref.id for ref in arrived(connection, codec, topics.online)]
    assert set(wanted[:first]) <= set(on_topic), "what the journal calls confirmed is on the log"
    assert run("feed.published:5", "--resume").returncode == -signal.SIGKILL
    last = run(None, "--resume", "--json")
    assert last.returncode == 0, last.stderr
    assert last.stderr == "", "no progress bar where stderr is no terminal"
    summary = json.loads(last.stdout)
    assert summary["published"] + summary["published_before"] == 80
    assert summary["published_before"] >= first
    ids = [ref.id for ref in arrived(connection, codec, topics.online)]
    assert set(ids) == set(wanted)
    assert confirmed() == 80
    again = run(None, "--resume", "--json")
    assert json.loads(again.stdout) | {"published": 0, "published_before": 80} == json.loads(again.stdout)
    assert len(read_topic(connection, topics.online)) == len(ids)


def test_what_kafka_did_not_confirm_is_said_and_can_be_sent_later(
    publish: Callable[..., Result], photographs: Path, topics: Topics
) -> None:
    nowhere = {"kafka.prefix": f"{topics.prefix}none.", "publisher.delivery_timeout_ms": 1500}
    failed = publish(str(photographs), "--batch-id", "b1", "--json", **nowhere)
    assert failed.exit_code == 1
    assert "Kafka did not confirm 80 images" in failed.stderr
    assert "--batch-id b1 --resume" in failed.stderr
    assert expected(photographs, "b1")[0] in failed.stderr
    assert json.loads(failed.stdout) | {"ok": False, "published": 0, "not_confirmed": 80} == json.loads(failed.stdout)
    later = publish(str(photographs), "--batch-id", "b1", "--resume", "--json")
    assert json.loads(later.stdout)["published"] == 80


@contextmanager
def worker(connection: KafkaConnection, publisher: Publisher, answer: Callable[[ImageRef], None]) -> Iterator[None]:
    """Stands for the pipeline behind the lanes: calls `answer` for each reference."""
    stop = threading.Event()
    settings = {"group.id": f"{publisher.topics.prefix}worker", "auto.offset.reset": "earliest"}
    consumer = Consumer({**connection.librdkafka(), **settings})
    consumer.subscribe([publisher.topics.online, publisher.topics.bulk])

    def run() -> None:
        while not stop.is_set():
            for message in consumer.consume(100, timeout=0.1):
                if message.error() is None:
                    answer(publisher.codec.decode(message.value(), ImageRef))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        consumer.close()


def test_wait_reports_results_failures_and_what_never_came(
    publish: Callable[..., Result], connection: KafkaConnection, publisher: Publisher, tmp_path: Path
) -> None:
    for name in ("good1", "good2", "bad", "lost"):
        (tmp_path / f"{name}.jpg").write_bytes(b"x")

    def answer(ref: ImageRef) -> None:
        topics, encode = publisher.topics, publisher.codec.encode
        if "good" in ref.uri:
            result = DetectionResult(
                id=ref.id, image_id=ref.id, uri=ref.uri, submitted_at=ref.submitted_at, completed_at=ref.submitted_at
            )
            publisher.send(topics.detections, b"k", encode(result), lambda *_: None)
        elif "bad" in ref.uri:
            letter = DeadLetter(code="image_corrupt", message="", stage="decode", image_id=ref.id)
            publisher.send(topics.dead_letters, b"k", encode(letter), lambda *_: None)

    with worker(connection, publisher, answer):
        good = publish(f"{tmp_path}/good*.jpg", "--wait", "--timeout", "30s")
        assert (good.exit_code, good.stderr) == (0, "")
        assert good.stdout.splitlines()[1:] == ["2 results, 0 detections", "latency p50 0 ms, p95 0 ms"]
        some = publish(str(tmp_path), "--batch-id", "b", "--wait", "--timeout", "5s", "--json")
    assert some.exit_code == 1
    summary = json.loads(some.stdout)
    assert (summary["results"], summary["failures"], summary["no_outcome"]) == (2, {"image_corrupt": 1}, 1)
    bad, lost = (image_id("b", from_path(tmp_path / name)) for name in ("bad.jpg", "lost.jpg"))
    assert some.stderr.splitlines() == [f"failed: {bad} (image_corrupt)", f"no outcome: {lost}"]


def test_a_resumed_run_waits_for_the_images_of_the_first_one_too(
    publish: Callable[..., Result], connection: KafkaConnection, publisher: Publisher, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")

    def answer(ref: ImageRef) -> None:
        result = DetectionResult(id=ref.id, image_id=ref.id, uri=ref.uri)
        publisher.send(publisher.topics.detections, b"k", publisher.codec.encode(result), lambda *_: None)

    with worker(connection, publisher, answer):
        assert publish(str(tmp_path), "--batch-id", "b").exit_code == 0
        read_topic(connection, publisher.topics.detections, at_least=1)
        (tmp_path / "b.jpg").write_bytes(b"x")
        again = publish(str(tmp_path), "--batch-id", "b", "--resume", "--wait", "--timeout", "30s", "--json")
    summary = json.loads(again.stdout)
    assert (summary["published"], summary["published_before"], summary["results"]) == (1, 1, 2)


def test_a_bad_manifest_line_is_named_and_what_came_before_it_is_published(
    publish: Callable[..., Result], connection: KafkaConnection, codec: Codec, topics: Topics, tmp_path: Path
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,camera\na.jpg,north\nb.jpg,south\nftp://x/y,east\n")
    failed = publish(str(manifest), "--key-from", "column:camera", "--batch-id", "b")
    assert "list.csv:4: ftp://x/y: unsupported scheme" in str(failed.exception)
    refs = arrived(connection, codec, topics.online)
    assert {(ref.uri, ref.key) for ref in refs} == {
        (file_uri(tmp_path / "a.jpg"), "north"),
        (file_uri(tmp_path / "b.jpg"), "south"),
    }


def test_usage_errors_are_told_before_anything_is_published(publish: Callable[..., Result], tmp_path: Path) -> None:
    for arguments in (
        (str(tmp_path), "--resume"),
        (str(tmp_path), "--attribute", "x"),
        (str(tmp_path), "--deadline", "soon"),
        (str(tmp_path), "--rate", "0"),
        (),
    ):
        assert publish(*arguments).exit_code == 2, arguments
