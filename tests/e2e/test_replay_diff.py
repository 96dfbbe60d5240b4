"""Two replays through two versions, compared on a real Kafka: the same as both versions held against each other without it."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, NewTopic

from detectors.evaluation_run import predict
from detectors.fake import LABELS, FakeDetector
from detectors.policy import ImagePolicy
from detectors.spec import ModelSpec
from infra.cli import group as cli
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import DetectParameters, ImageRef
from schemas.topics import Topics
from sinks.diff_core import Change, Seen
from sinks.diff_report import DiffJob, make_report
from sinks.diff_side import Side
from tests.e2e.conftest import MakeWorker
from tests.support.pipeline import pictures

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

VERSIONS = {"1": 0.25, "2": 0.5}
"""Two versions of one model: how sure each has to be."""


def put(publisher: Publisher, connection: KafkaConnection, topic: str, photographs: Sequence[Path]) -> None:
    """References on a topic of their own, which no worker reads."""
    admin = AdminClient({**connection.librdkafka(), "log_level": 0})
    admin.create_topics([NewTopic(topic, num_partitions=2)], operation_timeout=30)[topic].result(30)
    for path in photographs:
        ref = ImageRef(id=path.stem, uri=path.as_uri())
        publisher.send(topic, ref.ordering_key.encode(), publisher.codec.encode(ref), lambda *_: None)
    publisher.flush(60)


def seen_directly(photographs: Sequence[Path], version: str) -> Side:
    """What a version finds in the photographs, without a log."""
    ordered = sorted(photographs, key=lambda path: path.stem)
    detector = FakeDetector(ModelSpec(path="fake", version=version, confidence=VERSIONS[version]))
    found = predict(detector, dict(enumerate(ordered)), ImagePolicy(), DetectParameters())
    assert found.image_ids == tuple(range(len(ordered)))
    labels = np.array(LABELS)[found.boxes.class_ids]
    return Side(
        text=version,
        rows={("default", path.stem): row for row, path in enumerate(ordered)},
        uris=[path.as_uri() for path in ordered],
        ids=[path.stem for path in ordered],
        sizes=np.ones((len(ordered), 2), np.int64),
        offsets=found.boxes.offsets.astype(np.int64),
        boxes=Seen(found.boxes.xyxy, found.boxes.scores, labels),
        versions=(version,),
        superseded=0,
    )


def test_a_diff_of_two_replays_is_that_of_the_two_models(
    connection: KafkaConnection, topics: Topics, publisher: Publisher, make_worker: MakeWorker, tmp_path: Path
) -> None:
    photographs, source = pictures(tmp_path / "photos", 24), f"{topics.prefix}history"
    put(publisher, connection, source, photographs)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")},
        "SIGHTSTREAM_KAFKA_BOOTSTRAP": connection.bootstrap,
        "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
        "SIGHTSTREAM_STATE_DIR": str(tmp_path / "state"),
        "SIGHTSTREAM_REPLAY_SETTLE_S": "0.5",
    }

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, arguments, env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    for version, confidence in VERSIONS.items():
        worker = make_worker(MODEL_VERSION=version, MODEL_CONFIDENCE=str(confidence))
        worker.start()
        run("replay", "--topic", source, "--model", f"fake@{version}", "--id", f"r-{version}", "--wait", "--json")
        assert worker.end(signal.SIGTERM) == 0

    direct = make_report(seen_directly(photographs, "1"), seen_directly(photographs, "2"), DiffJob())
    assert direct.total.counts[Change.LOST], "there is something to find"
    wanted = json.loads(json.dumps(direct.figures()))
    for sides in (["r-1", "r-2"], ["fake@1", "fake@2"]):
        run("diff", *sides, "--json", str(tmp_path / "figures.json"))
        figures = json.loads((tmp_path / "figures.json").read_text())
        for name in ("images", "only_first", "only_second", "total", "classes", "confusions", "worst"):
            assert figures[name] == wanted[name], name
