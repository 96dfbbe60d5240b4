"""Disks that fail, and disks that forget what was not synced when the power goes."""

import os
from collections.abc import Callable
from pathlib import Path

from sinks.disk import Disk


class FailingDisk(Disk):
    """Refuses every change while told to; what a failing write left behind is half a file."""

    def __init__(self) -> None:
        super().__init__()
        self._error: int | None = None
        self._left = 0

    def refuse(self, error: int, after: int = 0) -> None:
        """From now on (after so many more operations) each operation fails with this errno."""
        self._error, self._left = error, after

    def allow(self) -> None:
        """All is well again."""
        self._error = None

    def create(self, path: Path, data: memoryview, written: Callable[[], None] = lambda: None) -> None:
        try:
            self._check()
        except OSError:
            path.write_bytes(data[: len(data) // 2])
            raise
        super().create(path, data, written)

    def link(self, source: Path, target: Path) -> None:
        self._check()
        super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        self._check()
        super().rename(source, target)

    def sync(self, directory: Path) -> None:
        self._check()
        super().sync(directory)

    def _check(self) -> None:
        if self._error is not None:
            self._left -= 1
            if self._left < 0:
                raise OSError(self._error, os.strerror(self._error))


class ForgetfulDisk(Disk):
    """Remembers what was not synced, so that `lose_power` can undo it: names of directories as well as content of files."""

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[tuple[Path, Callable[[], object]]] = []

    def create(self, path: Path, data: memoryview, written: Callable[[], None] = lambda: None) -> None:
        path.write_bytes(data)
        content: tuple[Path, Callable[[], object]] = (
            path,
            lambda: path.exists() and path.write_bytes(bytes(len(data) // 2)),
        )
        self._undo += [(path.parent, lambda: path.unlink(missing_ok=True)), content]
        written()
        self._undo.remove(content)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)
        self._undo.append((target.parent, lambda: target.unlink(missing_ok=True)))
        self.between()
        self.sync(target.parent)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)
        self._undo.append((target.parent, lambda: target.exists() and target.rename(source)))
        self.between()
        self.sync(target.parent)
        self.sync(source.parent)

    def make_directory(self, path: Path) -> None:
        if path in self._durable:
            return
        if path != path.parent:
            self.make_directory(path.parent)
            if not path.exists():
                path.mkdir()
                self._undo.append((path.parent, path.rmdir))
                self.between()
            self.sync(path.parent)
        self._durable.add(path)

    def sync(self, directory: Path) -> None:
        self._undo = [(place, undo) for place, undo in self._undo if place != directory]

    def between(self) -> None:
        """Called where an operation has happened and is not durable yet."""

    def lose_power(self) -> None:
        """What was not synced has not happened."""
        for _, undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self._durable.clear()
