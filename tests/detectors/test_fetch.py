"""Fetching from hosts that misbehave."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from ipaddress import ip_network
from typing import Any

import aiohttp
import pytest
import yarl

from detectors.fetch import HttpFetcher, map_http_error, parse_url
from detectors.hosts import Hosts
from detectors.policy import ImagePolicy
from schemas.addresses import REFUSAL, RefusedAddressError
from schemas.errors import BusyError, Reason, RejectedError
from tests.support.image_host import QUICK, ImageHost, image_host


@pytest.fixture
async def host() -> AsyncIterator[ImageHost]:
    async with image_host() as host:
        yield host


async def fetch(policy: ImagePolicy, uri: str) -> bytes:
    async with HttpFetcher(policy, Hosts(policy)) as fetcher:
        return await fetcher.fetch(uri)


@pytest.mark.parametrize("path", ["/photo.jpg", "/redirect", "/slow"])
async def test_a_photograph_arrives(host: ImageHost, path: str) -> None:
    assert await fetch(host.policy(), host.url(path)) == host.photo
    assert all(headers["Accept-Encoding"] == "identity" for headers in host.headers)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/status/404", Reason.IMAGE_NOT_FOUND),
        ("/status/410", Reason.IMAGE_NOT_FOUND),
        ("/status/401", Reason.IMAGE_FORBIDDEN),
        ("/status/403", Reason.IMAGE_FORBIDDEN),
        ("/status/400", Reason.FETCH_FAILED),
        ("/status/206", Reason.FETCH_FAILED),
        ("/status/304", Reason.FETCH_FAILED),
        ("/endless", Reason.IMAGE_TOO_LARGE),
        ("/large", Reason.IMAGE_TOO_LARGE),
        ("/redirect-loop", Reason.FETCH_FAILED),
        ("/redirect-nowhere", Reason.FETCH_FAILED),
        ("/redirect-private", Reason.URI_FORBIDDEN),
        ("/redirect-file", Reason.URI_UNSUPPORTED),
    ],
)
async def test_what_will_not_get_better_is_rejected(host: ImageHost, path: str, reason: Reason) -> None:
    with pytest.raises(RejectedError) as caught:
        await fetch(host.policy(), host.url(path))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/status/500", Reason.FETCH_FAILED),
        ("/status/502", Reason.FETCH_FAILED),
        ("/status/408", Reason.FETCH_FAILED),
        ("/hung", Reason.FETCH_TIMEOUT),
        ("/drip", Reason.FETCH_TIMEOUT),
        ("/wrong-length", Reason.FETCH_FAILED),
        ("/reset", Reason.FETCH_FAILED),
    ],
)
async def test_what_may_get_better_is_busy(host: ImageHost, path: str, reason: Reason) -> None:
    with pytest.raises(BusyError) as caught:
        await fetch(host.policy(), host.url(path))
    assert caught.value.reason is reason
    assert caught.value.retry_after_s > 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_host_says_when_to_come_back(host: ImageHost, status: int) -> None:
    with pytest.raises(BusyError) as caught:
        await fetch(host.policy(), host.url(f"/status/{status}"))
    assert caught.value.retry_after_s == 7


async def test_compressed_bodies_stay_compressed(host: ImageHost) -> None:
    body = await fetch(host.policy(), host.url("/gzip-bomb"))
    assert body.startswith(b"\x1f\x8b")
    assert len(body) < 100_000


async def test_redirects_are_counted(host: ImageHost) -> None:
    with pytest.raises(RejectedError, match="more than 3 redirects"):
        await fetch(host.policy(), host.url("/redirect-loop"))
    assert host.asked["/redirect-loop"] == 4


async def test_refused_connections_are_busy() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        policy = ImagePolicy(ports=frozenset({port}), extra_networks=(ip_network("127.0.0.0/8"),), timeouts=QUICK)
        with pytest.raises(BusyError) as caught:
            await fetch(policy, f"http://127.0.0.1:{port}/photo.jpg")
    assert caught.value.reason is Reason.FETCH_FAILED
    assert str(port) not in str(caught.value)


@pytest.mark.parametrize(
    "authority",
    [
        *("127.0.0.1", "localhost", "2130706433", "127.1", "0177.0.0.1", "0x7f.1", "0x7f000001", "[::1]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "0.0.0.0", "10.0.0.1", "[fe80::1]"),
    ],
)
async def test_no_spelling_of_a_private_address_is_connected_to(host: ImageHost, authority: str) -> None:
    policy = ImagePolicy(ports=frozenset({host.port}), timeouts=QUICK)
    with pytest.raises(RejectedError) as caught:
        await fetch(policy, f"http://{authority}:{host.port}/photo.jpg")
    assert caught.value.reason in {Reason.URI_FORBIDDEN, Reason.URI_UNSUPPORTED}
    assert not host.asked


async def test_a_name_is_judged_by_the_address_that_it_has_when_connecting(
    host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver under an attacker's control answers anything; what counts is where the socket would go."""

    async def lie(*_args: Any, **_options: Any) -> list[dict[str, Any]]:
        inner = {"hostname": "public.example", "host": "127.0.0.1", "port": host.port, "proto": 6, "flags": 0}
        return [{**inner, "family": socket.AF_INET}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", lie)
    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", lie)
    policy = ImagePolicy(ports=frozenset({host.port}), timeouts=QUICK)
    with pytest.raises(RejectedError) as caught:
        await fetch(policy, f"http://public.example:{host.port}/photo.jpg")
    assert caught.value.reason is Reason.URI_FORBIDDEN
    assert not host.asked


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://user@host/a.jpg", Reason.URI_FORBIDDEN),
        ("http://user:password@host/a.jpg", Reason.URI_FORBIDDEN),
        ("http://host:22/a.jpg", Reason.URI_FORBIDDEN),
        ("http://host/" + "a" * 2048, Reason.URI_FORBIDDEN),
        ("http://host:99999/a.jpg", Reason.URI_UNSUPPORTED),
        ("http:///a.jpg", Reason.URI_UNSUPPORTED),
        ("http://[::1", Reason.URI_UNSUPPORTED),
        ("ftp://host/a.jpg", Reason.URI_UNSUPPORTED),
    ],
)
def test_urls_that_are_not_asked_for(uri: str, reason: Reason) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_url(uri, frozenset({80, 443}))
    assert caught.value.reason is reason


async def test_a_redirect_never_leaves_https(host: ImageHost) -> None:
    fetcher = HttpFetcher(host.policy(), Hosts(host.policy()))
    with pytest.raises(RejectedError) as caught:
        fetcher._follow(yarl.URL("https://host/a"), host.url("/photo.jpg"))
    assert caught.value.reason is Reason.URI_FORBIDDEN


def all_errors(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from all_errors(derived)


@pytest.mark.parametrize("kind", sorted(set(all_errors(aiohttp.ClientError)), key=str))
def test_every_error_of_aiohttp_has_a_remedy(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    error._os_error = OSError("unreachable")  # type: ignore[attr-defined]
    mapped = map_http_error(error)
    if issubclass(kind, aiohttp.InvalidURL):
        assert isinstance(mapped, RejectedError)
    else:
        expected = Reason.FETCH_TIMEOUT if issubclass(kind, TimeoutError) else Reason.FETCH_FAILED
        assert isinstance(mapped, BusyError)
        assert mapped.reason is expected


@pytest.mark.parametrize("error", [RefusedAddressError(), OSError(f"Multiple exceptions: {REFUSAL}, timed out")])
def test_a_refused_address_is_permanent(error: OSError) -> None:
    assert map_http_error(error).reason is Reason.URI_FORBIDDEN
