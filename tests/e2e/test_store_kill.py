"""`kill -9` of a real store process around a transaction, on a real Kafka; its successor leaves each record counted exactly once."""

import signal
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from infra.cli import group as cli
from infra.settings import load
from infra.store import open_writer
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from sinks.store_schema import current_version
from sinks.store_tables import IMAGES, LABELS, POSITIONS, RESULTS
from streams.projection import FAILPOINTS
from tests.support.deliveries import command_process, eventually, mixed, put
from tests.support.kafka import read_topic
from tests.support.results import expected_rows

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(600)]  # five processes start in turn


def test_a_store_killed_around_its_transactions_goes_on_and_can_be_looked_at_and_rebuilt(
    connection: KafkaConnection, publisher: Publisher, topics: Topics, tmp_path: Path
) -> None:
    put(publisher, mixed(128))
    messages = read_topic(connection, topics.detections)
    wanted = {row[3] for row in expected_rows(messages)}
    settings = {
        "STATE_DIR": str(tmp_path),
        "KAFKA_GROUP": topics.prefix,
        "KAFKA_INSTANCE_ID": "slot-1",
        "STORE_RECORDS": "40",
        "STORE_KEEP_DAYS": "0",
        "LOG_LEVEL": "warning",
    }
    for point in FAILPOINTS:
        with command_process(["sink", "store"], connection, topics, settings | {"FAILPOINT": f"{point}:2"}) as victim:
            assert victim.wait(120) == -signal.SIGKILL
    environment = {f"SIGHTSTREAM_{name}": value for name, value in settings.items()}
    here = environment | {
        "SIGHTSTREAM_KAFKA_BOOTSTRAP": connection.bootstrap,
        "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
    }
    with closing(open_writer(load(environ=here))) as writer:

        def counted() -> tuple[set[str], int, int]:
            with writer.engine.connect() as database:
                ids = set(database.execute(select(RESULTS.c.id)).scalars())
                images = database.execute(select(func.count()).select_from(IMAGES)).scalar_one()
                return ids, images, database.execute(select(func.count()).select_from(LABELS)).scalar_one()

        def read() -> int:
            with writer.engine.connect() as database:
                rows = database.execute(select(POSITIONS.c.next_offset).where(POSITIONS.c.topic == topics.detections))
                return sum(rows.scalars())

        end = sum({m.partition(): m.offset() + 1 for m in messages}.values())
        with command_process(["sink", "store"], connection, topics, settings) as successor:
            eventually(lambda: read() == end, "the successor reads all", 120)
            successor.send_signal(signal.SIGTERM)
            assert successor.wait(30) == 0
        assert counted() == (wanted, len(wanted), len(wanted))
        assert current_version(writer.engine)
        said = CliRunner().invoke(cli, ["store", "status"], env=here)
        assert said.exit_code == 0, said.output
        assert f"results {len(wanted)}" in said.output
        with command_process(["store", "rebuild", "--yes"], connection, topics, settings) as rebuilding:
            assert rebuilding.wait(120) == 0
        assert counted() == (wanted, len(wanted), len(wanted))
