"""`sightstream worker` as a process of its own, on a real Kafka."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.commands.demo import PHOTOS
from producers.items import file_uri
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from streams.awaiting import Outcomes
from tests.support.deliveries import eventually

LIMIT_S = 90
ROOT = Path(__file__).parents[2]


@contextmanager
def _worker(
    directory: Path, environ: dict[str, str], *arguments: str
) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    command = [sys.executable, "-m", "infra.cli", "worker", "--model", "fake", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
    log = directory / "worker.log"
    environment = kept | environ | {"PYTHONPATH": str(ROOT), "SIGHTSTREAM_LOG_FORMAT": "json"}
    with log.open("wb") as stream, subprocess.Popen(command, stderr=stream, cwd=directory, env=environment) as process:
        try:
            yield process, log
        finally:
            process.kill()


def _url(log: Path) -> str:
    told = re.search(r'"message": "serving HTTP".*"port": (\d+)', log.read_text())
    return f"http://127.0.0.1:{told[1]}" if told else ""


def _ready(log: Path) -> bool:
    try:
        with urllib.request.urlopen(f"{_url(log)}/readyz", timeout=5) as answer:
            return bool(json.load(answer)["status"] == "ready")
    except (OSError, ValueError):
        return False


@pytest.mark.kafka
def test_a_worker_detects_tells_its_health_and_drains_on_sigterm(
    tmp_path: Path, connection: KafkaConnection, topics: Topics, publisher: Publisher
) -> None:
    environ = {
        "SIGHTSTREAM_KAFKA_BOOTSTRAP": connection.bootstrap,
        "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
        "SIGHTSTREAM_KAFKA_GROUP": f"{topics.prefix}group",
        "SIGHTSTREAM_IMAGES_ROOTS": str(PHOTOS),
        "SIGHTSTREAM_HTTP_PORT": "0",  # which no option stands over
    }
    refs = [ImageRef(id=photo.stem, uri=file_uri(photo)) for photo in sorted(PHOTOS.glob("*.jpg"))]
    with _worker(tmp_path, environ) as (process, log), Outcomes(connection, publisher.codec, topics) as outcomes:
        eventually(lambda: _ready(log), "the worker is ready", LIMIT_S)
        marks = outcomes.marks()
        for ref in refs:
            publisher.publish(ref)
        tally = outcomes.wait({ref.id for ref in refs}, marks, LIMIT_S)
        assert (tally.results, tally.failures) == (len(refs), {})
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0, log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert "SIGTERM: finishing what has begun" in [line["message"] for line in lines]
    assert not [line for line in lines if line["level"] in {"ERROR", "CRITICAL"}]


def test_a_worker_that_reaches_no_broker_says_so_and_exits_2(tmp_path: Path) -> None:
    with _worker(tmp_path, {"SIGHTSTREAM_KAFKA_BOOTSTRAP": "127.0.0.1:1"}) as (process, log):
        assert process.wait(LIMIT_S) == 2
    assert "cannot use the brokers at 127.0.0.1:1" in log.read_text()
