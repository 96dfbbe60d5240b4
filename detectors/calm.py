"""Whether a model is being opened beside one that works: then what takes all cores for a moment takes one for longer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CALM: ContextVar[bool] = ContextVar("calm", default=False)


def is_calm() -> bool:
    """Whether whoever opens a model here is to leave cores to others."""
    return _CALM.get()


@contextmanager
def calmly() -> Iterator[None]:
    """Within the block `is_calm` says so, on this thread."""
    token = _CALM.set(True)
    try:
        yield
    finally:
        _CALM.reset(token)
