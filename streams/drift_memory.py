"""What a watcher of drift knew when it last wrote it down: a file, so that a restart goes on where it was."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

log = logging.getLogger(__name__)

_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Noted:
    """`positions`: of the partitions of `topic`, up to where results are in `monitor` (`sinks.drift_monitor.DriftMonitor.state`)."""

    topic: str
    positions: Mapping[int, int]
    monitor: Mapping[str, Any]


class DriftMemory:
    """One file for each baseline in a folder. It is there whole or not at all. Raises OSError where it cannot be written."""

    def __init__(self, folder: Path, baseline: str) -> None:
        self._file = folder / f"{quote(baseline, safe='')}.json"

    def load(self) -> Noted | None:
        """What was saved last; None where there is nothing that can be used, which is logged where there is something."""
        try:
            fields = json.loads(self._file.read_text("utf-8"))[_VERSION]
            positions = {int(partition): int(offset) for partition, offset in fields["positions"].items()}
            return Noted(str(fields["topic"]), positions, fields["monitor"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("drift: %s cannot be used, begins anew: %r", self._file, error)
            return None

    def save(self, noted: Noted) -> None:
        """Replace what was saved."""
        fields = {_VERSION: {"topic": noted.topic, "positions": noted.positions, "monitor": noted.monitor}}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".new")
        with aside.open("w", encoding="utf-8") as stream:
            json.dump(fields, stream, separators=(",", ":"))
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self._file)
