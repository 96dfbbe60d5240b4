"""Progress on stderr, for a person who waits: nothing where nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[int], object]]:
    """A bar of pictures with the time that is left, `done` of which were there before; the function moves it on by so many."""
    from tqdm import tqdm  # noqa: PLC0415 - it would slow `--help`

    with tqdm(
        total=total, initial=done, desc=what, unit="img", file=sys.stderr, disable=None, leave=False, dynamic_ncols=True
    ) as bar:
        yield bar.update
