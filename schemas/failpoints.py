"""Named points at which a test lets the process die, to show that nothing is lost there.

Unarmed, a point costs one comparison. `infra.settings` arms one from `SIGHTSTREAM_FAILPOINT=name:nth`.
"""

import os
import signal

_armed: str | None = None
_left = 0


def arm(name: str, nth: int = 1) -> None:
    """Kill this process with SIGKILL when the point `name` is reached for the `nth` time (1-based)."""
    global _armed, _left
    _armed, _left = name, nth


def reach(name: str) -> None:
    """Mark a point; returns at once unless it is the armed one and its count is up."""
    global _left  # noqa: PLW0603
    if name != _armed:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
