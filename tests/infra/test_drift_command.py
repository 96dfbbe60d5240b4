"""`sightstream drift` on a real Kafka: a baseline, a watcher that dies and comes back, and what was said."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra.commands.drift import command
from infra.drift import drift_parts, read_alerts, watch_once
from infra.runtime import run_together
from infra.settings import Settings
from infra.telemetry import Health
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.drift import DriftAlert, DriftState
from schemas.errors import ConfigurationError
from schemas.records import EPOCH, DetectionResult
from schemas.topics import Topics
from streams.drift_alerts import DriftAlerts
from streams.drift_memory import DriftMemory, Noted
from streams.drift_reading import ResultReader
from tests.support.deliveries import eventually
from tests.support.drift import NOON, Camera, Scene, batch_of

HOUR = timedelta(hours=1)
CAMERAS = [Camera(key=f"camera-{at}") for at in range(6)]
DIM = Scene(score=0.5)
BASELINE = ["baseline", "--from", (NOON - HOUR).isoformat(), "--to", NOON.isoformat()]


@pytest.fixture
def settings(connection: KafkaConnection, topics: Topics, tmp_path: Path) -> Settings:
    given = {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix, "state_dir": tmp_path}
    return Settings().overriding({**given, "drift.window_s": 3600, "drift.min_images": 100, "drift.adwin": "off"})


def hour_of(at: int, *dim: str) -> Sequence[Mapping[str, Any]]:
    """An hour of all cameras; `dim` are those that got dirty."""
    start = NOON + at * HOUR
    return [
        row
        for one in CAMERAS
        for row in one.results(start, start + HOUR, 110, DIM if one.key in dim else Scene(), seed=at + 9)
    ]


def publish(publisher: Publisher, rows: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: row["completed_at"])
    keys = [row["key"].encode() for row in ordered]
    values = publisher.codec.encode_run(batch_of(ordered), DetectionResult)
    publisher.send_run(publisher.topics.detections, keys, values, lambda error, _: None)
    publisher.flush(60)


def run(settings: Settings, *line: str) -> str:
    done = CliRunner().invoke(command, line, obj=settings, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@asynccontextmanager
async def watching(settings: Settings) -> AsyncIterator[None]:
    """A watcher as a service runs it, ready; stopped at the end."""
    health, stop = Health(), asyncio.Event()
    work = asyncio.ensure_future(run_together(drift_parts(settings, health), stop))
    await asyncio.to_thread(eventually, lambda: not health.unready() or work.done(), "the watcher is ready", 60)
    yield
    stop.set()
    await work


def ended(settings: Settings) -> bool:
    return DriftState.ENDS in {alert.state for alert in alerts_of(settings)}


def alerts_of(settings: Settings) -> list[DriftAlert]:
    return list(read_alerts(settings))


async def test_one_camera_drifts_and_is_told_once_whatever_happens_to_the_watcher(
    settings: Settings, publisher: Publisher
) -> None:
    with pytest.raises(ConfigurationError, match="there is no baseline default"):
        watch_once(settings, EPOCH)
    publish(publisher, hour_of(-1))
    assert "key=camera-5" in run(settings, *BASELINE)
    assert "nothing differs" in run(settings, "show", "default")
    for at in range(3):
        publish(publisher, hour_of(at, *(["camera-3"] if at else [])))
    assert {str(aspect.slice) for aspect in watch_once(settings, EPOCH)} == {"acme key=camera-3"}
    eventually(lambda: bool(alerts_of(settings)), "the alerts can be read", 60)  # soon after they were committed
    first = alerts_of(settings)
    assert {(alert.slice, alert.window_start) for alert in first} == {("key=camera-3", NOON + HOUR)}
    assert {alert.state for alert in first} == {DriftState.BEGINS}

    assert watch_once(settings, EPOCH)  # a restart has nothing more to say
    (settings.state_dir / "drift" / "default.json").unlink()
    assert watch_once(
        settings, EPOCH
    )  # nor has one that lost its memory, and so reads all again, nor has a second watcher
    assert alerts_of(settings) == first

    async with watching(settings):
        publish(publisher, [*hour_of(3), *hour_of(4)])
        await asyncio.to_thread(eventually, lambda: ended(settings), "the end of it is told", 60)
    every = alerts_of(settings)
    assert every[: len(first)] == first
    assert Counter(alert.state for alert in every if alert.statistic == "score") == dict.fromkeys(DriftState, 1)
    assert "nothing differs" in run(settings, "show")
    shown = run(settings, "show", "--since", NOON.isoformat(), "--json").splitlines()
    assert {json.loads(line)["id"] for line in shown} == {alert.id for alert in every}


def test_two_watchers_at_the_same_moment_say_each_alert_once(
    connection: KafkaConnection, codec: Codec, topics: Topics
) -> None:
    alerts = [DriftAlert(id=f"{at}", baseline_id="b", tenant="acme") for at in range(20)]
    with ThreadPoolExecutor(3) as pool:
        watchers = [DriftAlerts(connection, codec, topics.drift, f"{topics.prefix}{at}") for at in range(3)]
        written = [pool.submit(one.write, alerts[at:]) for at, one in enumerate(watchers)]
        assert sum(len(one.result(120)) for one in written) == len(alerts)

    def read() -> list[str]:
        return [alert.id for alert in DriftAlerts(connection, codec, topics.drift, f"{topics.prefix}reader").read()]

    eventually(lambda: len(read()) >= len(alerts), "all can be read", 60)
    assert Counter(read()) == dict.fromkeys((alert.id for alert in alerts), 1)


def test_results_that_were_deleted_before_they_were_read_are_said_and_the_others_read_once(
    connection: KafkaConnection, publisher: Publisher, topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    publish(publisher, hour_of(0))
    with ResultReader(connection, publisher.codec, topics.detections, f"{topics.prefix}drift") as reader:
        ends = reader.ends()
        places = {TopicPartition(topics.detections, index, end // 2): end for index, end in ends.items() if end}
        admin = AdminClient(connection.librdkafka())  # as long as it lives it answers
        for future in admin.delete_records(list(places)).values():
            future.result(60)
        reader.begin(dict.fromkeys(ends, 0))
        rows, ended, stop = 0, set[int](), threading.Event()
        deadline = time.monotonic() + 60
        while ended != ends.keys() and time.monotonic() < deadline:
            stretch = reader.read(50, 1.0, stop)
            rows += sum(run.batch.num_rows for run in stretch.runs)
            ended |= stretch.ended
    assert rows == sum(end - end // 2 for end in ends.values())
    assert reader.positions == ends
    assert "were deleted before they were read" in caplog.text


def test_a_baseline_comes_out_of_parquet_files_too_and_is_only_shown(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    pq.write_table(pa.Table.from_batches([batch_of(hour_of(-1))]).drop(["silent"]), lake / "old.parquet")
    elsewhere = Settings().overriding({"kafka.bootstrap": "127.0.0.1:1", "drift.min_images": 100})
    shown = run(elsewhere, *BASELINE, "--lake", str(lake), "--slice", "key", "--dry-run")
    assert "660 images" in shown
    assert "acme key=camera-0" in shown
    with pytest.raises(ConfigurationError, match="are no baseline"):
        run(elsewhere, *BASELINE, "--lake", str(lake), "--model", "yolo@4", "--dry-run")


def test_a_reference_that_makes_no_sense_is_a_usage_error() -> None:
    done = CliRunner().invoke(command, [*BASELINE, "--slice", "camera"], obj=Settings())
    assert done.exit_code == 2
    assert "attributes.NAME" in done.output


def test_the_memory_is_whole_or_not_there(tmp_path: Path) -> None:
    memory = DriftMemory(tmp_path, "shelf/7 ..")
    assert memory.load() is None
    noted = Noted("detections", {0: 5, 3: 7}, {"windows": {}})
    memory.save(noted)
    assert memory.load() == noted
    (file,) = tmp_path.iterdir()
    for broken in ("", "{}", "[]", '{"v1": 3}', file.read_text("utf-8")[:-3]):
        file.write_text(broken, "utf-8")
        assert memory.load() is None
