"""The virus scanner: clean goes through, infected does not, and where nobody can tell nothing goes through either."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from producers.scan import ClamScanner, open_scanner
from producers.upload_policy import UploadPolicy
from schemas.errors import ConfigurationError
from schemas.problems import ProblemError
from tests.support.clamd import CLAMD, SIGNATURE, STREAM_MAX, real_clamd, serving, stub_clamd
from tests.support.gateway import Caller, gateway_at
from tests.support.images import encode, photograph
from tests.support.quiet import NoKafka

JPEG = encode(photograph(1), "JPEG")
INFECTED = encode(photograph(1), "JPEG", comment=SIGNATURE)


@pytest.fixture(scope="module")
def daemon() -> Iterator[str | None]:
    """A real clamd where one is installed, else None."""
    if CLAMD is None:
        yield None
        return
    with real_clamd() as address:
        yield address


@pytest.fixture(params=["real", "stub"])
async def address(request: pytest.FixtureRequest, daemon: str | None) -> AsyncIterator[str]:
    """clamd's address. Without the daemon (Debian: clamav-daemon) the real one's turn is taken by the stub, too."""
    if request.param == "real" and daemon is not None:
        yield daemon
        return
    async with stub_clamd() as stub:
        yield stub


async def test_clean_and_infected(address: str, tmp_path: Path) -> None:
    scanner = open_scanner(address)
    large = tmp_path / "large"
    for clean in (JPEG, b"x" * 1_000_000, b""):
        await scanner.scan(clean)
        large.write_bytes(clean)
        await scanner.scan(large)
    for infected in (SIGNATURE, b"x" * 500_000 + SIGNATURE, INFECTED):
        large.write_bytes(infected)
        for content in (infected, large):
            with pytest.raises(ProblemError) as refusal:
                await scanner.scan(content)
            assert (refusal.value.status, refusal.value.code) == (422, "image_infected")
            assert "Sightstream" not in refusal.value.detail, "what was found is the operator's business"


async def test_more_scans_than_turns(address: str) -> None:
    scanner = open_scanner(address, scans=2)
    outcomes = await asyncio.gather(
        *(scanner.scan(JPEG) for _ in range(20)), scanner.scan(INFECTED), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 20 + [ProblemError]


async def test_what_clamd_does_not_look_at_is_not_let_in(address: str) -> None:
    with pytest.raises(ProblemError) as refusal:
        await open_scanner(address).scan(b"x" * (STREAM_MAX + 1_000_000))
    assert (refusal.value.status, refusal.value.code) == (503, "scanner_unavailable")


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"",
        b"\0",
        b"stream: OK",
        b"OK\0",
        b"stream: OK\n\0x"[:3],
        b"UNKNOWN COMMAND\0",
        b"stream: OK FOUND ERROR\0",
        b"x" * 10_000,
    ],
    ids=range(9),
)
async def test_anything_but_a_clear_answer_keeps_everything_out(reply: bytes | None) -> None:
    """A scanner that has gone mad, or is none."""

    async def say(reader: asyncio.StreamReader) -> bytes:
        await reader.read(100)
        if reply is None:  # nothing, until the other side gives up
            await reader.read()
        return reply or b""

    async with serving(say) as address:
        with pytest.raises(ProblemError) as refusal:
            await ClamScanner(address, timeout_s=0.3).scan(JPEG)
    assert (refusal.value.status, refusal.value.code) == (503, "scanner_unavailable")
    assert refusal.value.retry_after_s


async def test_no_scanner_no_uploads() -> None:
    for address in ("tcp://127.0.0.1:1", "unix:/nowhere/clamd.sock"):
        with pytest.raises(ProblemError) as refusal:
            await ClamScanner(address).scan(JPEG)
        assert refusal.value.code == "scanner_unavailable"


@pytest.mark.parametrize(
    "address", ["/run/clamd", "tcp://host", "http://host:1", "unix:", "tcp://host:port", "tcp://:99999999"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigurationError):
        open_scanner(address)


@pytest.fixture
async def caller(address: str, tmp_path: Path) -> AsyncIterator[Caller]:
    uploads = UploadPolicy(url=str(tmp_path / "up"), scanner=address)
    async with gateway_at(NoKafka(), tmp_path, uploads=uploads) as caller:
        yield caller


async def test_nothing_infected_comes_in_by_any_way(caller: Caller, tmp_path: Path) -> None:
    raw = await caller.post("/v1/images", data=INFECTED, headers={"Content-Type": "image/jpeg"})
    one = await caller.send(INFECTED)
    several = await caller.send(INFECTED, INFECTED)
    ticket = (await caller.post("/v1/uploads", json={"content_type": "image/jpeg"})).body
    put = await caller.call("PUT", ticket["url"], data=INFECTED, headers=ticket["headers"])
    assert [(answer.status, answer.code) for answer in (raw, one, put)] == [(422, "image_infected")] * 3
    assert [image["problem"]["code"] for image in several.body["images"]] == ["image_infected"] * 2
    assert [path for path in (tmp_path / "up").rglob("*") if path.is_file()] == []
