"""Logging of a process: JSON lines for machines, short lines for a terminal, and a bound on what a library repeats."""

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from infra.sections import LogSettings

_REPEATS_S = 10.0
# aiokafka says every 0.1 s that a broker is away; librdkafka, mode and aiohttp have their own way of saying things often.
_CHATTY = ("alembic", "aiokafka", "confluent_kafka", "faust", "mode")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class RepeatLimit(logging.Filter):
    """Lets one message of each place in the code through per interval, and says with it how many were held back.

    Only loggers under `names` are limited, so that no line about an image is ever dropped.
    """

    def __init__(self, names: tuple[str, ...], interval_s: float, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._prefixes = tuple(f"{name}." for name in names)
        self._interval_s = interval_s
        self._now = now
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written; bounded memory, since places in the code are finite."""
        if not f"{record.name}.".startswith(self._prefixes):
            return True
        place, now = (record.pathname, record.lineno), self._now()
        last, held = self._seen.get(place, (float("-inf"), 0))
        if now - last < self._interval_s:
            self._seen[place] = (last, held + 1)
            return False
        self._seen[place] = (now, 0)
        if held:
            record.held_back = held
        return True


class ConsoleFormatter(logging.Formatter):
    """`12:00:01 WARNING streams.worker: text  image_id=...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        """The line, with the structured fields behind it."""
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return "  ".join([super().formatMessage(record), *(f"{name}={value}" for name, value in extra.items())])


def set_up(policy: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Send every log record of this process to `stream`; replaces whatever was set up before."""
    as_json = policy.format == "json" or (policy.format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_json_formatter() if as_json else ConsoleFormatter())
    handler.addFilter(RepeatLimit(_CHATTY, _REPEATS_S))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(policy.level.upper())
    logging.captureWarnings(capture=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _json_formatter() -> JsonFormatter:
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
    )
