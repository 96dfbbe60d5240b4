"""What the README shows runs as it stands there, but for addresses and paths."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import ImageRef, new_image_id
from schemas.topics import Topics
from sinks.base import Extent, Partition
from sinks.parquet import ParquetPolicy, ParquetSink
from tests.support.data import ROOT
from tests.support.kafka import read_topic
from tests.support.results import NOON, run_of

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The only block of a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.mark.kafka
def test_the_python_publishes(
    connection: KafkaConnection, topics: Topics, codec: Codec, capsys: pytest.CaptureFixture[str]
) -> None:
    address = '"127.0.0.1:9092"'
    assert block("python").count(address) == 1
    names: dict[str, Any] = {}
    exec(block("python").replace(address, f'"{connection.bootstrap}", prefix="{topics.prefix}"'), names)
    (record,) = read_topic(connection, topics.online, at_least=1)
    assert codec.decode(record.value(), ImageRef).id == names["ref"].id
    assert capsys.readouterr().out.split() == [topics.online, str(record.partition()), "0"]


def test_the_sql_counts_boxes(tmp_path: Path) -> None:
    place = Partition("detections", 0)
    sink = ParquetSink(ParquetPolicy(directory=tmp_path))
    sink.open(place, Extent("T", 0, 1_000_000))
    sink.write(run_of(place, 0, [new_image_id() for _ in range(4)], at_ms=[NOON] * 4))
    sink.flush()
    assert block("sql").count("'lake/") == 1
    found = duckdb.sql(block("sql").replace("'lake/", f"'{tmp_path}/")).fetchall()
    assert [(str(date), *rest) for date, *rest in found] == [("2026-01-01", "person", 4, 0.5)]
