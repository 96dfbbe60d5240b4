"""The tutorial's commands, as they stand there but for the broker, which is the suite's own: each must do what the text says."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import DetectionResult
from schemas.topics import Topics
from tests.support.data import ROOT
from tests.support.kafka import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
PICTURES = len(list((ROOT / "infra" / "demo_pictures" / "images").iterdir()))
_PATIENT_S = 360


def script() -> str:
    """All blocks, one after the other; the first command that fails ends it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)
    commands = "".join(blocks)
    for line in ("sightstream broker start --port 9092\n", "sightstream broker stop\n", "sightstream topics create\n"):
        assert commands.count(line) == 1
        commands = commands.replace(line, "")
    return "set -eu\n" + commands


def test_its_commands_do_what_it_says(
    connection: KafkaConnection, topics: Topics, codec: Codec, tmp_path: Path
) -> None:
    settings = {
        "KAFKA_BOOTSTRAP": connection.bootstrap,
        "KAFKA_PREFIX": topics.prefix,
        "KAFKA_GROUP": f"{topics.prefix}workers",
        "STATE_DIR": str(tmp_path / "state"),
        "LOG_LEVEL": "warning",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
    environment = inherited | {f"SIGHTSTREAM_{name}": value for name, value in settings.items()}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for name in ("detectors", "infra"):
        (tmp_path / name).symlink_to(ROOT / name)
    running = subprocess.Popen(
        ["bash", "-c", script()],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said = run_to_its_end(running)
    finally:
        os.killpg(running.pid, signal.SIGKILL)  # the worker is in the background
    assert running.returncode == 0, said
    results = [codec.decode(message.value(), DetectionResult) for message in read_topic(connection, topics.detections)]
    live = sorted((one for one in results if not one.replay_id), key=lambda one: one.submitted_at)
    versions = [result.model_version for result in live]
    assert versions[:PICTURES] == ["1"] * PICTURES
    assert set(versions[PICTURES : 2 * PICTURES]) == {"1", "2"}
    assert versions[2 * PICTURES :] == ["2"] * PICTURES
    assert "<html" in (tmp_path / "diff.html").read_text("utf-8")


def run_to_its_end(running: "subprocess.Popen[str]") -> str:
    """What it says. The worker in the background keeps the pipe open, so that its end cannot be waited for."""
    assert running.stdout is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(_PATIENT_S)
    os.killpg(running.pid, signal.SIGTERM)
    with running.stdout as said:
        return said.read()
