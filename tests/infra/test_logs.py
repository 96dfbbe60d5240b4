"""Log lines: JSON with the fields that matter, and no flood."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from infra.logs import RepeatLimit, set_up
from infra.sections import LogSettings


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_the_image_id_and_the_error() -> None:
    stream = io.StringIO()
    set_up(LogSettings(), stream)
    try:
        int("bad")
    except ValueError:
        logging.getLogger("streams.worker").exception("failed", extra={"image_id": "i1"})
    (line,) = _lines(stream)
    assert (line["level"], line["logger"], line["message"], line["image_id"]) == (
        "ERROR",
        "streams.worker",
        "failed",
        "i1",
    )
    assert "ValueError: invalid literal" in str(line["exc_info"])
    assert "timestamp" in line


def test_the_console_shows_the_fields_behind_the_text() -> None:
    stream = io.StringIO()
    set_up(LogSettings(format="console", level="warning"), stream)
    logging.getLogger("a").info("not shown")
    logging.getLogger("a").warning("shown", extra={"image_id": "i1"})
    assert stream.getvalue().endswith("WARNING a: shown  image_id=i1\n")
    assert "not shown" not in stream.getvalue()


def _say(logger: str, text: str) -> logging.LogRecord:
    return logging.LogRecord(logger, logging.ERROR, "client.py", 42, text, None, None)


def test_a_library_that_repeats_itself_is_held_back_and_counted() -> None:
    now = 0.0
    limit = RepeatLimit(("aiokafka",), 10.0, now=lambda: now)
    assert [bool(limit.filter(_say("aiokafka.conn", f"away {i}"))) for i in range(100)] == [True] + [False] * 99
    now = 10.0
    record = _say("aiokafka.conn", "still away")
    assert limit.filter(record)
    assert vars(record)["held_back"] == 99


def test_our_own_lines_are_never_held_back() -> None:
    limit = RepeatLimit(("aiokafka",), 10.0, now=lambda: 0.0)
    assert all(limit.filter(_say("streams.worker", "x")) for _ in range(5))
    assert all(limit.filter(_say("aiokafkaesque", "x")) for _ in range(5))
