"""What replays there are: manifests on disk and on their topic, and the progress of each; who goes on with one, and who leaves off."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cattrs.preconf.json import make_converter

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.replays import ReplayManifest, ReplayProgress, ReplayState
from schemas.topics import Topics
from streams.fold import Fold, Follower, Latest, read_to_end
from streams.replay_source import GROUP

_CONVERTER = make_converter()


@dataclass(frozen=True, slots=True)
class Entry:
    """A replay, and how far it has come; None where it never began."""

    manifest: ReplayManifest
    progress: ReplayProgress | None


class Book:
    """All replays that the log or this machine's `directory` knows."""

    def __init__(self, connection: KafkaConnection, codec: Codec, topics: Topics, directory: Path) -> None:
        self._connection, self._codec, self._topics, self._directory = connection, codec, topics, directory

    def read(self) -> dict[str, Entry]:
        """Every replay, by id. Raises ConfigurationError where the topics cannot be read, or a file is not what the log says."""
        manifests, progress = Latest(ReplayManifest), Latest(ReplayProgress)
        folds: dict[str, Fold[Any]] = {self._topics.replays: manifests, self._topics.replay_progress: progress}
        read_to_end(Follower(self._connection, self._codec, folds, GROUP))
        known = self._files() | manifests.all()
        return {name: Entry(manifest, progress.get(name)) for name, manifest in known.items()}

    def get(self, replay_id: str) -> Entry:
        """One replay. Raises ConfigurationError where there is none, or its file here contradicts the log."""
        entry = self.read().get(replay_id)
        if entry is None:
            raise ConfigurationError(f"there is no replay {replay_id!r}: `sightstream replay list` shows all")
        path = self._path(replay_id)
        if path.exists() and _load(path) != entry.manifest:
            raise ConfigurationError(f"{path} is not the manifest that is on {self._topics.replays}")
        return entry

    def enter(self, manifest: ReplayManifest, publisher: Publisher) -> None:
        """Write a manifest to disk, then to its topic; returns when Kafka has it. Written again it must be the same.

        Raises ConfigurationError where another manifest has the id, DeliveryError where Kafka does not confirm it.
        """
        path = self._path(manifest.id)
        try:
            _write_once(path, manifest)
        except FileExistsError:
            if _load(path) != manifest:
                raise ConfigurationError(f"there is another replay {manifest.id!r}: {path}") from None
        publisher.put(self._topics.replays, manifest.id, manifest).result()

    @contextmanager
    def held(self, replay_id: str) -> Iterator[None]:
        """The only process of this machine at a replay, for as long as the block. Raises ConfigurationError where another one is."""
        path = self._path(replay_id).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(f"another process is at replay {replay_id!r}") from None
            yield

    def _path(self, replay_id: str) -> Path:
        return self._directory / f"{quote(replay_id, safe='')}.json"

    def _files(self) -> dict[str, ReplayManifest]:
        found = (_load(path) for path in sorted(self._directory.glob("*.json")))
        return {manifest.id: manifest for manifest in found}


class Watch:
    """Sees on `replay-progress` whether someone wants this turn to end: asked to stop, or taken over by a later turn.

    A `changed` of `streams.fold.Latest`; sets `stop`.
    """

    def __init__(self, mine: ReplayProgress, stop: threading.Event) -> None:
        self._mine, self._stop = mine, stop
        self.taken_over_by: str | None = None

    def changed(self, replay_id: str, progress: ReplayProgress | None) -> None:
        """Take what the topic says."""
        mine = self._mine
        if progress is None or replay_id != mine.id or progress.runner == mine.runner:
            return
        asked = progress.state is ReplayState.STOPPED and progress.turn == mine.turn
        later = progress.state is not ReplayState.STOPPED and (progress.turn, progress.runner) > (
            mine.turn,
            mine.runner,
        )
        if later:
            self.taken_over_by = progress.runner
        if asked or later:
            self._stop.set()


def _write_once(path: Path, manifest: ReplayManifest) -> None:
    """The file is there as a whole, and for good, or not at all. Raises FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(_CONVERTER.dumps(manifest, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()


def _load(path: Path) -> ReplayManifest:
    try:
        return _CONVERTER.loads(path.read_text("utf-8"), ReplayManifest)
    except Exception as error:
        raise ConfigurationError(f"{path} is no manifest of a replay: {error}") from error
