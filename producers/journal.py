"""How far a batch is confirmed, in a small file that survives the process."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from schemas.errors import ConfigurationError

_START = hashlib.sha256(b"sightstream publish").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The first `confirmed` items of a batch are done with: on Kafka, or named in `rejected` because they never can be.

    `digest` is a hash chain over their ids, by which a source that has changed meanwhile is found out. `marks` is the
    caller's, kept as it is.
    """

    batch_id: str
    confirmed: int = 0
    rejected: tuple[str, ...] = ()
    digest: str = _START
    marks: Mapping[str, Any] = field(default_factory=dict)

    def advanced(self, image_id: str, *, rejected: bool = False) -> Self:
        """The progress after one more item, in order."""
        digest = hashlib.sha256(f"{self.digest}{image_id}".encode()).hexdigest()
        refused = (*self.rejected, image_id) if rejected else self.rejected
        return replace(self, confirmed=self.confirmed + 1, rejected=refused, digest=digest)


@dataclass(frozen=True, slots=True)
class Journal:
    """One batch's file, `DIRECTORY/<batch id>.json`. Written as a whole or not at all."""

    directory: Path

    def path(self, batch_id: str) -> Path:
        """The batch's file; an id may hold any characters."""
        return self.directory / f"{quote(batch_id, safe='')}.json"

    def load(self, batch_id: str) -> Progress | None:
        """What an earlier run left, or None. Raises `ConfigurationError` for a file that says something else."""
        path = self.path(batch_id)
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            return Progress(**{**said, "rejected": tuple(said["rejected"])})
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{path}: not a publish journal ({error}); delete it to start over") from error

    def save(self, progress: Progress) -> None:
        """Replace the batch's file."""
        path = self.path(progress.batch_id)
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(progress), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
