"""The knobs of reading results over HTTP, apart from it so that reading settings loads no image library."""

from dataclasses import dataclass, field
from pathlib import Path

from sinks.waits import WaitPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsPolicy:
    """How results are given out. Bounds are per process.

    `retry_after_s`: when to ask again for what has no outcome yet. `picture_side`: longest side, in pixels, of an annotated picture, and of
    what is decoded for it. `drawers`: threads that draw; `drawn_waiting`: requests that may wait for them; `drawn_bytes`: pictures kept for
    the next who asks. `font`: a TrueType file for labels in other scripts than Latin. `status_s`: how old the service's figures may be.
    """

    retry_after_s: float = 1.0
    picture_side: int = 4096
    drawers: int = 2
    drawn_waiting: int = 64
    drawn_bytes: int = 32 << 20
    font: Path | None = None
    status_s: float = 1.0
    waits: WaitPolicy = field(default_factory=WaitPolicy)
