"""Pages of other sites, DNS rebinding, proxies, and the headers that every answer carries."""

from ipaddress import ip_network

import aiohttp
import pytest

from infra.http.policies import IdentityPolicy, LimitPolicy
from infra.http.stack import EdgeParts, check_open
from schemas.errors import ConfigurationError
from tests.support.edge import served

APP = "https://app.example.com"
OPEN = EdgeParts(identity=IdentityPolicy(origins=(APP,)), limits=LimitPolicy())


async def _get(url: str, headers: dict[str, str], method: str = "GET") -> aiohttp.ClientResponse:
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        await answer.read()
        return answer


async def test_pages_of_this_server_and_of_the_list_may_call_and_are_told_so() -> None:
    async with served(OPEN) as server:
        for origin in (APP, server.url):
            answer = await _get(f"{server.url}/v1/images/a", {"Origin": origin})
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Vary"] == "Origin"
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]
            assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://app.example.com",
        f"{APP}.evil.example",
        f"{APP}/",
        "",
        "//",
        "http://[",
        "://",
    ],
)
async def test_pages_of_other_sites_may_not(origin: str) -> None:
    async with served(OPEN) as server:
        for method in ("GET", "POST", "OPTIONS"):
            answer = await _get(f"{server.url}/v1/images/a", {"Origin": origin}, method)
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert server.seen == []


async def test_a_preflight_asks_for_no_credential_and_says_what_may_be_sent() -> None:
    parts = EdgeParts(identity=IdentityPolicy(mode="required", origins=(APP,)), limits=LimitPolicy())
    async with served(parts) as server:
        asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        answer = await _get(f"{server.url}/v1/images", asked, "OPTIONS")
    assert answer.status == 204
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]


async def test_refusals_can_be_read_by_pages_that_may_call() -> None:
    async with served(OPEN) as server:
        answer = await _get(f"{server.url}/nothing", {"Origin": APP})
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (404, APP)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::ffff:8.8.8.8]", ""])
async def test_a_foreign_name_that_resolves_here_opens_nothing_in_open_mode(host: str) -> None:
    async with served(OPEN) as server:
        for path in ("/v1/images/a", "/healthz"):
            assert (await _get(f"{server.url}{path}", {"Host": host})).status in {400, 403}


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8080"])
async def test_this_machines_own_names_are_fine(host: str) -> None:
    async with served(OPEN) as server:
        assert (await _get(f"{server.url}/v1/images/a", {"Host": host})).status == 200


@pytest.mark.parametrize("path", ["/v1/images/a", "/nothing", "/v1/events", "/healthz"])
async def test_every_answer_carries_the_security_headers(path: str) -> None:
    async with served(OPEN) as server:
        headers = (await _get(f"{server.url}{path}", {})).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Server"] == "sightstream"
    assert headers["X-Request-Id"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "gateway", "::", ""])
def test_open_mode_is_for_loopback_alone(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"identity\.mode") as caught:
        check_open(IdentityPolicy(), host)
    assert "\n" not in str(caught.value)
    check_open(IdentityPolicy(mode="required"), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_open_mode_is_fine_on_loopback(host: str) -> None:
    check_open(IdentityPolicy(), host)


def _behind(*networks: str) -> EdgeParts:
    proxies = tuple(ip_network(network) for network in networks)
    return EdgeParts(identity=IdentityPolicy(trusted_proxies=proxies), limits=LimitPolicy())


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the left one anybody may have written
        ("203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("nonsense, 10.0.0.2", "10.0.0.2"),
        ("nonsense", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", "127.0.0.1"),
    ],
)
async def test_a_trusted_proxy_says_where_a_request_comes_from(said: str, address: str) -> None:
    async with (
        served(_behind("127.0.0.0/8", "10.0.0.0/8")) as server,
        aiohttp.ClientSession() as session,
        session.get(
            f"{server.url}/v1/images/a", headers={"X-Forwarded-For": said, "X-Forwarded-Proto": "https"}
        ) as answer,
    ):
        assert await answer.json() == {"id": "a", "from": address, "scheme": "https"}
        assert answer.headers["X-Request-Id"]


async def test_anybody_else_is_not_believed() -> None:
    async with (
        served(_behind("10.0.0.0/8")) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/v1/images/a", headers={"X-Forwarded-For": "203.0.113.9"}) as answer,
    ):
        assert (await answer.json())["from"] == "127.0.0.1"
