"""`sightstream detect` against a gateway in memory."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.cli import group
from schemas.problems import ProblemError
from tests.support.fake_gateway import FakeGateway
from tests.support.images import encode, photograph


@contextmanager
def gateway() -> Iterator[FakeGateway]:
    """A gateway in a thread of its own: the command has the event loop of this one."""
    began, fake = threading.Event(), FakeGateway()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with fake.serving():
            began.set()
            await ended.wait()

    failures: list[BaseException] = []

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert began.wait(20)
        yield fake
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
    assert not failures, failures


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, two of them called the same."""
    for name in ("a/shelf.jpg", "b/shelf.jpg", "b/shelf-2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photograph(1, 64, 48), "PNG" if name.endswith("png") else "JPEG"))
    return tmp_path / "photos"


def run(*arguments: str | Path) -> Result:
    """The command, as a user calls it."""
    return CliRunner().invoke(group, ["detect", *map(str, arguments)])


def test_every_picture_is_told_of_and_saved(photos: Path, tmp_path: Path) -> None:
    with gateway() as fake:
        done = run(
            photos, "https://example.org/far.jpg", "--server", fake.url, "--save", tmp_path / "out", "--key", "k"
        )
        assert done.exit_code == 0, done.output
    assert sorted(done.stdout.splitlines()) == sorted(
        f"{source}: 1 qr (250 ms)"
        for source in (
            photos / "a/shelf.jpg",
            photos / "b/shelf.jpg",
            photos / "b/shelf-2.png",
            "https://example.org/far.jpg",
        )
    )
    files = {path.name for path in (tmp_path / "out").iterdir()}
    stems = ("shelf", "shelf-2", "shelf-3", "far")
    assert files == {f"{stem}{suffix}" for stem in stems for suffix in (".json", ".jpg")}
    saved = json.loads((tmp_path / "out" / "shelf.json").read_text())
    assert saved["source"] == str(photos / "a/shelf.jpg")
    assert saved["detections"] == [{"label": "qr", "class_id": 0, "score": 0.9, "box": [1.0, 2.0, 30.5, 40.5]}]
    assert saved["submitted_at"] == "2026-11-22T12:00:00.000Z"
    assert (tmp_path / "out" / "far.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_lines_of_json(photos: Path) -> None:
    with gateway() as fake:
        done = run(photos, "--server", fake.url, "--json")
    assert done.exit_code == 0
    assert {json.loads(line)["status"] for line in done.stdout.splitlines()} == {"completed"}


def test_what_has_no_result_is_said_and_ends_in_1(photos: Path, tmp_path: Path) -> None:
    (photos / "a" / "not.jpg").write_text("hello")
    with gateway() as fake:
        refused = run(photos / "a", "--server", fake.url)
        assert refused.exit_code == 1
        assert "not.jpg: image_type_unsupported:" in refused.stderr
        assert "shelf.jpg: 1 qr" in refused.stdout
        fake.outcome = "failed"
        failed = run(photos / "b", "--server", fake.url, "--save", tmp_path / "out")
        assert failed.exit_code == 1
        assert "shelf.jpg: image_corrupt: the image ends too early" in failed.stderr
        assert json.loads((tmp_path / "out" / "shelf.json").read_text())["failure"]["stage"] == "decode"
        fake.outcome = None
        slow = run(photos / "b", "--server", fake.url, "--timeout", "50ms")
        assert slow.exit_code == 1
        assert "shelf.jpg: unfinished: " in slow.stderr


def test_a_gateway_that_does_not_let_one_in(photos: Path) -> None:
    with gateway() as fake:
        fake.hitches.append(ProblemError(401, "unauthorized", "a valid credential is needed"))
        done = run(photos, "--server", fake.url)
    assert done.exit_code == 2
    assert "client.token" in done.stderr


def test_nobody_there(photos: Path) -> None:
    done = run(photos, "--server", "http://127.0.0.1:9")
    assert done.exit_code == 1
    assert done.stderr.startswith("sightstream: http://127.0.0.1:9 does not answer")


def test_the_credential_comes_from_the_environment(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTSTREAM_CLIENT_TOKEN", "k3y")
    with gateway() as fake:
        assert run(photos, "--server", fake.url).exit_code == 0
        assert {one.headers["Authorization"] for one in fake.seen} == {"Bearer k3y"}
