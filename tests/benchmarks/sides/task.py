"""What a side of the comparison is told, and what it says back: one line when it has its first record in hand."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Read `source`, write `sink`, commit as `group`. The producer's settings are the same for every side."""

    bootstrap: str
    source: str
    sink: str
    group: str
    producer: Mapping[str, Any] = field(default_factory=dict)
    commit_interval_s: float = 0.25
    worker: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """As an argument of a process."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls) -> "Task":
        """The task of this process."""
        return cls(**json.loads(sys.argv[1]))


def announce_first() -> None:
    """Say that the first record is here, and what the process spent until then."""
    print(json.dumps({"at": time.time(), "cpu_s": time.process_time()}), flush=True)
