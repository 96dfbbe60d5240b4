"""Manifests on disk, and who leaves off when another goes on."""

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.replays import ReplayManifest, ReplayMark, ReplayProgress, ReplayRange, ReplayState
from schemas.topics import Topics
from streams.replay_book import Book, Watch

MANIFEST = ReplayManifest(
    id="r/1",
    topic="images.online",
    ranges=(ReplayRange(partition=1, first=2, end=3, references=1, digest="ab"),),
    references=1,
    filters={"site": "north"},
    marks=(ReplayMark(topic="images.bulk", offset=2**40),),
    created_at=datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC),
)
MINE = ReplayProgress(id="r/1", runner="b", turn=2)


@pytest.mark.kafka
def test_a_manifest_is_written_once_and_found_wherever_it_is(
    connection: KafkaConnection, codec: Codec, topics: Topics, publisher: Publisher, tmp_path: Path
) -> None:
    book, elsewhere = (Book(connection, codec, topics, tmp_path / name) for name in ("here", "there"))
    assert book.read() == {}
    book.enter(MANIFEST, publisher)
    book.enter(MANIFEST, publisher)
    with pytest.raises(ConfigurationError, match="another replay"):
        book.enter(replace(MANIFEST, model="yolo@4"), publisher)
    assert book.get("r/1").manifest == elsewhere.get("r/1").manifest == MANIFEST
    assert book.get("r/1").progress is None
    publisher.put(topics.replay_progress, "r/1", MINE).result()
    assert elsewhere.get("r/1").progress == MINE
    with pytest.raises(ConfigurationError, match="no replay 'r2'"):
        book.get("r2")
    (file,) = (tmp_path / "here").glob("*.json")
    file.write_text(file.read_text().replace("north", "south"))
    with pytest.raises(ConfigurationError, match="is not the manifest that is on"):
        book.get("r/1")
    file.write_text("{")
    with pytest.raises(ConfigurationError, match="no manifest of a replay"):
        book.get("r/1")


def test_one_process_of_a_machine_is_at_a_replay(codec: Codec, tmp_path: Path) -> None:
    book = Book(KafkaConnection(bootstrap="127.0.0.1:1"), codec, Topics(), tmp_path)
    with book.held("r1"):
        with book.held("r2"):
            pass
        with pytest.raises(ConfigurationError, match="another process is at replay 'r1'"), book.held("r1"):
            pass
    with book.held("r1"):
        pass


@pytest.mark.parametrize(
    ("said", "stops", "taken_over"),
    [
        (None, False, None),
        (replace(MINE, sent=5), False, None),
        (replace(MINE, id="r2", runner="c", turn=3), False, None),
        (replace(MINE, runner="a", turn=1), False, None),
        (replace(MINE, runner="a", turn=1, state=ReplayState.STOPPED), False, None),
        (replace(MINE, runner="stop", state=ReplayState.STOPPED), True, None),
        (replace(MINE, runner="a", turn=3), True, "a"),
        (replace(MINE, runner="a"), False, None),
        (replace(MINE, runner="c"), True, "c"),
    ],
    ids=["nothing", "itself", "another", "before", "stopped-before", "asked", "later", "lesser-twin", "greater-twin"],
)
def test_a_turn_ends_when_it_is_asked_to_or_another_goes_on(
    said: ReplayProgress | None, stops: bool, taken_over: str | None
) -> None:
    stop = threading.Event()
    watch = Watch(MINE, stop)
    watch.changed(said.id if said else "r/1", said)
    assert (stop.is_set(), watch.taken_over_by) == (stops, taken_over)
