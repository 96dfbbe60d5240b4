"""Photographs replayed through two versions on a real Kafka, once by a process that is killed twice.

Each reference is sent once, each image has its outcome, and what `diff` says of both replays is what the two versions say without Kafka.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, NewTopic
from PIL import Image

from detectors.evaluation_run import predict
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from infra.cli import group as cli
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import DetectionResult, DetectParameters, ImageRef, Lane
from schemas.replays import ReplayManifest, ReplayProgress, ReplayState
from schemas.topics import Topics
from sinks.diff_core import Seen
from sinks.diff_report import DiffJob, make_report
from sinks.diff_side import Side
from streams.replay import FAILPOINTS
from streams.replay_lane import REPLAY_OF
from tests.e2e.conftest import MakeWorker
from tests.support.data import ROOT, shared_dir
from tests.support.kafka import read_topic
from tests.support.models import yolo_onnx
from tests.support.pipeline import pictures

__all__ = ["yolo_onnx"]

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(600)]

PHOTOGRAPHS, TIMES, GONE = 80, 50, 2
ID, AGAIN = "last-summer", "last-summer-again"
MODEL, SURER = "yolo@1", "yolo@2"
CONFIDENCE = {MODEL: 0.25, SURER: 0.5}
"""Two versions of one network, by how sure each has to be."""


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """80 photographs, small ones, so that decoding them 50 times is quick; made on the spot where the real ones are missing."""
    shared, folder = shared_dir(), tmp_path / "photographs"
    real = shared / "datasets" / "coco-val-80" / "images" if shared else None
    if real is None or not real.is_dir():
        return pictures(folder, PHOTOGRAPHS)
    folder.mkdir()
    for path in real.iterdir():
        with Image.open(path) as photograph:
            photograph.draft("RGB", (160, 160))
            photograph.convert("RGB").save(folder / path.name)
    return sorted(folder.iterdir())


def history(photographs: Sequence[Path]) -> list[ImageRef]:
    """Every photograph 50 times over, in batches; of the first two the files are gone."""
    uris = [path.as_uri() + (".gone" if at < GONE else "") for at, path in enumerate(photographs)]
    return [
        ImageRef(
            id=f"{batch:02}-{at:02}",
            uri=uri,
            key=f"camera-{at % 16}",
            batch_id=f"batch-{batch}",
            attributes={"site": "north" if at % 2 else "south"},
        )
        for batch in range(TIMES)
        for at, uri in enumerate(uris)
    ]


def put(publisher: Publisher, connection: KafkaConnection, topic: str, refs: Sequence[ImageRef]) -> None:
    """The references on a topic of their own, so that no worker has seen them."""
    admin = AdminClient({**connection.librdkafka(), "log_level": 0})
    admin.create_topics([NewTopic(topic, num_partitions=4)], operation_timeout=30)[topic].result(30)
    problems: list[object] = []

    def report(error: object, _: object) -> None:
        problems.extend([error] if error else [])

    for ref in refs:
        publisher.send(topic, ref.ordering_key.encode(), publisher.codec.encode(ref), report)
    publisher.flush(60)
    assert not problems


def seen_directly(model: Path, photographs: Sequence[Path], version: str) -> Side:
    """What a version finds in each photograph, without a log."""
    detector = open_detector(ModelSpec(path=str(model), precision="f32", confidence=CONFIDENCE[version]))
    found = predict(detector, dict(enumerate(photographs)), ImagePolicy(), DetectParameters())
    labels = np.array(detector.model.labels)[found.boxes.class_ids]
    detector.close()
    assert found.image_ids == tuple(range(len(photographs)))
    return Side(
        text=version,
        rows={("default", path.stem): row for row, path in enumerate(photographs)},
        uris=[path.as_uri() for path in photographs],
        ids=[path.stem for path in photographs],
        sizes=np.ones((len(photographs), 2), np.int64),
        offsets=found.boxes.offsets.astype(np.int64),
        boxes=Seen(found.boxes.xyxy, found.boxes.scores, labels),
        versions=(version,),
        superseded=0,
    )


def test_killed_twice_each_reference_is_sent_once_and_each_image_has_its_outcome(  # noqa: PLR0917 - fixtures
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    codec: Codec,
    photographs: list[Path],
    yolo_onnx: Path,
    make_worker: MakeWorker,
    tmp_path: Path,
    chance: Random,
) -> None:
    refs, source = history(photographs), f"{topics.prefix}history"
    put(publisher, connection, source, refs)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")},
        "SIGHTSTREAM_KAFKA_BOOTSTRAP": connection.bootstrap,
        "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
        "SIGHTSTREAM_STATE_DIR": str(tmp_path / "state"),
        "SIGHTSTREAM_REPLAY_SAVE_EVERY_S": "0.05",
        "SIGHTSTREAM_REPLAY_SETTLE_S": "0.5",
    }

    def killed(*arguments: str) -> None:
        """The command, until chance kills it on its way."""
        point = chance.choice(FAILPOINTS)
        nth = chance.randint(1, len(refs) // 3) if point == "replay.sent" else 1
        line = [sys.executable, "-m", "infra.cli", "replay", *arguments]
        armed = environment | {"SIGHTSTREAM_FAILPOINT": f"{point}:{nth}"}
        done = subprocess.run(line, cwd=ROOT, env=armed, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr

    def run(*arguments: str) -> dict[str, object]:
        said: dict[str, object] = json.loads(command("replay", *arguments))
        return said

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(cli, arguments, env=environment)
        assert done.exit_code == 0, done.output
        return done.stdout

    added = ("models", "add", str(yolo_onnx), "--precision", "f32", "--confidence")
    command(*added, str(CONFIDENCE[MODEL]), "--stable")
    command(*added, str(CONFIDENCE[SURER]))
    worker = make_worker(
        IMAGES_ROOTS=str(photographs[0].parent),
        MODELS_DEFAULT="yolo",
        MODELS_REHEARSE="false",
        STATE_DIR=str(tmp_path / "worker"),
    )
    worker.start()
    what = ("--topic", source, "--model", MODEL, "--id", ID, "--rate", "3000")
    planned = run(*what, "--dry-run", "--json")
    killed(*what)
    killed("resume", ID, "--rate", "3000")
    said = run("resume", ID, "--wait", "--json")

    (manifest,) = [codec.decode(one.value(), ReplayManifest) for one in read_topic(connection, topics.replays)][-1:]
    assert (said["ok"], said["state"], said["sent"]) == (True, "completed", len(refs))
    assert manifest.references == planned["references"] == said["references"] == len(refs)
    assert manifest.digest == planned["digest"] == said["digest"]
    last = [codec.decode(one.value(), ReplayProgress) for one in read_topic(connection, topics.replay_progress)][-1]
    assert (last.state, last.sent, last.turn) == (ReplayState.COMPLETED, len(refs), 3)

    check_lane(connection, topics, codec, refs)
    gone = {ref.id for ref in refs if ref.uri.endswith(".gone")}
    assert said["gone"] == {ref.id: ref.uri for ref in refs if ref.id in gone}
    assert (said["results"], said["failures"], said["no_outcome"]) == (len(refs) - len(gone), {}, [])
    results = [codec.decode(one.value(), DetectionResult) for one in read_topic(connection, topics.detections)]
    assert Counter(one.image_id for one in results) == Counter(ref.id for ref in refs if ref.id not in gone)
    assert {(one.replay_id, one.silent, f"{one.model_name}@{one.model_version}") for one in results} == {
        (ID, True, MODEL)
    }
    run("--topic", source, "--model", SURER, "--id", AGAIN, "--wait", "--json")
    assert worker.end(signal.SIGTERM) == 0

    first, second = (seen_directly(yolo_onnx, photographs[GONE:], version) for version in (MODEL, SURER))
    direct = json.loads(json.dumps(make_report(first, second, DiffJob()).figures()))
    assert direct["total"]["lost"]["count"], "the versions do differ"
    for sides in ((ID, AGAIN), (MODEL, SURER)):
        command("diff", *sides, "--json", str(tmp_path / "figures.json"))
        figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
        assert figures["images"] == TIMES * direct["images"]
        assert counts(figures) == {name: TIMES * count for name, count in counts(direct).items()}


def counts(figures: dict[str, Any]) -> dict[tuple[str, str], int]:
    """How often each change was, in all and by class."""
    summaries = {"": figures["total"], **figures["classes"]}
    return {
        (label, change): facts["count"]
        for label, summary in summaries.items()
        for change, facts in summary.items()
        if isinstance(facts, dict) and "count" in facts
    }


def check_lane(connection: KafkaConnection, topics: Topics, codec: Codec, refs: Sequence[ImageRef]) -> None:
    """On the bulk lane each reference stands once, in the order of its key, and as it was but for what a replay changes."""
    messages = read_topic(connection, topics.bulk)
    sent = [codec.decode(message.value(), ImageRef) for message in messages]
    assert Counter(ref.id for ref in sent) == Counter(ref.id for ref in refs)
    places = [dict(message.headers() or [])[REPLAY_OF] for message in messages]
    assert len(set(places)) == len(refs)
    asked = {ref.id: ref for ref in refs}
    for ref in sent:
        as_it_was = asked[ref.id]
        assert ref == replace(
            as_it_was, lane=Lane.BULK, model=MODEL, replay_id=ID, silent=True, submitted_at=ref.submitted_at
        )
    for key in {ref.key for ref in refs}:
        assert [ref.id for ref in sent if ref.key == key] == [ref.id for ref in refs if ref.key == key]
