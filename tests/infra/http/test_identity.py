"""API keys at the door: who is let in, as whom, and for what."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from yarl import URL

from infra.http.identity import Credentials
from infra.http.policies import LimitPolicy
from infra.http.stack import EdgeParts
from infra.key_ring import KeyRing
from infra.keys import NewKey, make_key
from schemas.identity import Principal, Scope
from schemas.problems import CONTENT_TYPE
from tests.support.edge import REQUIRED, Served, served

NOW = datetime.now(UTC)


def _key(ring: KeyRing, tenant: str, *scopes: str) -> NewKey:
    made = make_key(tenant, scopes, "", NOW, None)
    ring.fold(made.record)
    return made


def _parts(ring: KeyRing, **others: object) -> EdgeParts:
    credentials = Credentials(keys=ring, **others)  # type: ignore[arg-type]
    return EdgeParts(identity=REQUIRED, limits=LimitPolicy(), credentials=credentials)


async def _ask(server: Served, method: str, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, f"{server.url}{path}", headers=headers) as a:
        document = await a.json(content_type=None) if a.content_type == CONTENT_TYPE and method != "HEAD" else {}
        if a.status == 401:
            assert a.headers["WWW-Authenticate"].startswith("Bearer")
        return a.status, document.get("code", "")


async def test_the_tenant_is_the_keys_whatever_the_request_says() -> None:
    ring = KeyRing()
    key = _key(ring, "acme", "submit")
    async with (
        served(_parts(ring)) as server,
        aiohttp.ClientSession() as session,
        session.post(
            f"{server.url}/v1/images?tenant=other",
            headers={"Authorization": f"Bearer {key.text}", "X-Tenant": "other"},
            json={"tenant": "other"},
        ) as answer,
    ):
        assert (await answer.json())["tenant"] == "acme"


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_scope_opens_its_methods_and_no_others(scope: Scope) -> None:
    ring = KeyRing()
    bearer = f"Bearer {_key(ring, 'acme', scope).text}"
    calls = {
        ("POST", "/v1/images"): {Scope.SUBMIT},
        ("GET", "/v1/images/a"): {Scope.READ},
        ("GET", "/v1/events"): {Scope.READ},
        ("HEAD", "/v1/images/a"): {Scope.READ},
        ("DELETE", "/v1/images/a"): {Scope.DELETE},
        ("POST", "/v1/tickets"): {Scope.READ},
    }
    async with served(_parts(ring)) as server:
        for (method, path), wanted in calls.items():
            status, code = await _ask(server, method, path, Authorization=bearer)
            if scope in wanted or scope is Scope.ADMIN:
                assert status < 300, (method, path)
            else:
                assert status == 403
                assert code == ("forbidden" if method != "HEAD" else "")


async def test_whatever_is_wrong_with_a_credential_the_answer_is_the_same() -> None:
    ring = KeyRing()
    good = _key(ring, "acme", "read")
    revoked = _key(ring, "acme", "read")
    ring.fold(replace(revoked.record, revoked_at=NOW))
    expired = _key(ring, "acme", "read")
    ring.fold(replace(expired.record, expires_at=NOW - timedelta(seconds=1)))
    unknown = make_key("acme", ["read"], "", NOW, None)
    stolen_id = make_key("acme", ["read"], "", NOW, None)
    ring.fold(replace(stolen_id.record, secret_sha256=good.record.secret_sha256))
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {good.text}",
        good.text,
        f"Bearer {good.text}x",
        f"Bearer {good.text} {good.text}",
        f"Bearer {good.text[:-1]}",
        f"Bearer {revoked.text}",
        f"Bearer {expired.text}",
        f"Bearer {unknown.text}",
        f"Bearer {stolen_id.text}",
        "Bearer sightstream_' OR 1=1 --",
        "Bearer \u00e4",
    ]
    async with served(_parts(ring)) as server:
        assert (await _ask(server, "GET", "/v1/images/a", Authorization=f"Bearer {good.text}"))[0] == 200
        assert (await _ask(server, "GET", "/v1/images/a", Authorization=f"bearer {good.text}"))[0] == 200
        for text in wrong:
            assert await _ask(server, "GET", "/v1/images/a", Authorization=text) == (401, "unauthorized"), text
        assert await _ask(server, "GET", "/v1/images/a") == (401, "unauthorized")
        # In the query a key would end up in logs, so there it is none.
        assert (await _ask(server, "GET", f"/v1/events?ticket={good.text}"))[0] == 401
        assert (await _ask(server, "GET", f"/v1/images/a?ticket={good.text}"))[0] == 401


async def test_two_credentials_are_none() -> None:
    ring = KeyRing()
    texts = [_key(ring, tenant, "read").text for tenant in ("acme", "other")]
    headers = [("Authorization", f"Bearer {text}") for text in texts]
    async with (
        served(_parts(ring)) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/v1/images/a", headers=headers) as answer,
    ):
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/v1/openapi.json", "/healthz"])
async def test_what_holds_nobodys_data_asks_for_nothing(path: str) -> None:
    async with served(_parts(KeyRing())) as server:
        assert (await _ask(server, "GET", path))[0] == 200


@pytest.mark.parametrize(
    "path", ["/%761/images/a", "/v1/./images/a", "/v1/x/../images/a", "/v1%2Fimages%2Fa", "//v1/images/a"]
)
async def test_no_spelling_of_a_path_goes_around_the_door(path: str) -> None:
    async with (
        served(_parts(KeyRing())) as server,
        aiohttp.ClientSession() as session,
        session.get(URL(f"{server.url}{path}", encoded=True)) as answer,
    ):
        assert answer.status in {401, 404}


async def test_a_ticket_opens_a_stream_once() -> None:
    tickets = {"t1": Principal(tenant="acme", subject="k", scopes=frozenset({Scope.READ}))}

    async def redeem(text: str) -> Principal | None:
        return tickets.pop(text, None)

    async with served(_parts(KeyRing(), redeem=redeem)) as server:
        assert (await _ask(server, "GET", "/v1/images/a?ticket=t1"))[0] == 401
        assert (await _ask(server, "GET", "/v1/events?ticket=t1"))[0] == 200
        assert (await _ask(server, "GET", "/v1/events?ticket=t1"))[0] == 401


@pytest.mark.parametrize(("age_s", "status"), [(None, 503), (0.0, 200), (599.0, 200), (601.0, 503)])
async def test_keys_whose_revocation_nobody_could_have_heard_of_are_not_taken(age_s: float | None, status: int) -> None:
    ring = KeyRing()
    key = _key(ring, "acme", "read")
    async with served(_parts(ring, keys_age_s=lambda: age_s)) as server:
        got, code = await _ask(server, "GET", "/v1/images/a", Authorization=f"Bearer {key.text}")
    assert (got, code) == (status, "" if status == 200 else "not_ready")
