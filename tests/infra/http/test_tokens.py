"""JWTs by the rules of RFC 8725, against a real server of keys."""

import asyncio
import base64
import json
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.warnings import InsecureKeyLengthWarning

from infra.http.identity import Credentials
from infra.http.jwks import Jwks
from infra.http.policies import LimitPolicy, TokenPolicy
from infra.http.stack import EdgeParts
from infra.http.tokens import Tokens
from schemas.errors import BusyError
from schemas.identity import Principal, Scope
from tests.support.edge import REQUIRED, served

ISSUER, AUDIENCE = "https://issuer.example", "sightstream"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def public(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.get_algorithm_by_name(more.get("alg", "RS256"))
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **more}


KEYS = [
    public(RSA, "rsa", alg="RS256", use="sig"),
    public(EC, "ec", alg="ES256"),
    public(ED, "ed", alg="EdDSA"),
    public(SMALL_RSA, "small", alg="RS256"),
    public(OTHER_RSA, "encryption", alg="RS256", use="enc"),
    public(OTHER_RSA, "pss", alg="PS256"),
    {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode(), "alg": "HS256"},
]


@dataclass(slots=True)
class KeyServer:
    """What it serves, how often it was asked, and whether it works."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=lambda: list(KEYS))
    asked: int = 0
    answer: Callable[[], web.StreamResponse] | None = None


@asynccontextmanager
async def key_server() -> AsyncIterator[KeyServer]:
    state = KeyServer()

    async def jwks(_: web.Request) -> web.StreamResponse:
        state.asked += 1
        return state.answer() if state.answer else web.json_response({"keys": state.keys})

    app = web.Application()
    app.router.add_get("/jwks", jwks)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    try:
        yield state
    finally:
        await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def policy(url: str, **changes: Any) -> TokenPolicy:
    return replace(TokenPolicy(jwks_url=url, issuer=ISSUER, audience=AUDIENCE), **changes)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300}
    good |= {"tenant": "acme", "scope": "read submit", **changes}
    return {name: value for name, value in good.items() if value is not None}


def token(
    key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", typ: str | None = "at+jwt", **changes: Any
) -> str:
    headers: dict[str, Any] = {"kid": kid, "typ": typ} if kid is not None else {"typ": typ}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def unsigned(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def verify(text: str, **changes: Any) -> Principal | None:
    async with key_server() as server:
        chosen = policy(server.url, **changes)
        return await Tokens(chosen, Jwks(chosen)).verify(text)


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")])
async def test_a_good_token_says_who_it_is(key: Any, algorithm: str, kid: str) -> None:
    found = await verify(token(key, algorithm, kid))
    assert found is not None
    assert (found.tenant, found.subject) == ("acme", "ann")
    assert found.scopes == {Scope.READ, Scope.SUBMIT}
    assert found.expires_at is not None
    assert 0 < found.expires_at.timestamp() - time.time() < 340


PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
HEAD = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa"}


def hs_signed_with_the_public_key() -> str:
    import hashlib
    import hmac

    body = unsigned({**HEAD, "alg": "HS256"}, claims()).rstrip(".")
    signature = hmac.new(PEM, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def signed_with_a_short_key() -> str:
    with warnings.catch_warnings(category=InsecureKeyLengthWarning, action="ignore"):
        return token(SMALL_RSA, "RS256", "small")


NOW = int(time.time())
BAD: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned({**HEAD, "alg": "none"}, claims()),
    "alg None": lambda: unsigned({**HEAD, "alg": "None"}, claims()),
    "no alg": lambda: unsigned({"typ": "at+jwt", "kid": "rsa"}, claims()),
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "HS256 with the public key as secret": hs_signed_with_the_public_key,
    "HS256 with a key of the set": lambda: token("s" * 32, "HS256", "oct"),
    "another algorithm than the key's": lambda: token(RSA, "RS512"),
    "an algorithm that is not allowed": lambda: token(OTHER_RSA, "PS256", "pss"),
    "a key for encryption": lambda: token(OTHER_RSA, "RS256", "encryption"),
    "a key that is too short": signed_with_a_short_key,
    "signed by another key": lambda: token(OTHER_RSA),
    "another key's kid": lambda: token(RSA, "RS256", "ec"),
    "unknown kid": lambda: token(kid="nobody"),
    "no kid": lambda: token(kid=None),
    "a kid that is no text": lambda: unsigned({**HEAD, "kid": ["rsa"]}, claims(), b"x"),
    "a kid that goes somewhere": lambda: token(kid="../../etc/passwd"),
    "a kid that asks a database": lambda: token(kid="' OR 1=1 --"),
    "expired": lambda: token(exp=NOW - 60),
    "no exp": lambda: token(exp=None),
    "exp that is no number": lambda: token(exp="tomorrow"),
    "exp beyond all": lambda: token(exp=10**30),
    "not yet": lambda: token(nbf=NOW + 600),
    "made in the future": lambda: token(iat=NOW + 600),
    "no iat": lambda: token(iat=None),
    "another audience": lambda: token(aud="billing"),
    "several audiences": lambda: token(aud=[AUDIENCE, "billing"]),
    "no audience": lambda: token(aud=None),
    "another issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "no subject": lambda: token(sub=None),
    "an ID token": lambda: token(typ="JWT"),
    "no typ": lambda: token(typ=None),
    "no tenant": lambda: token(tenant=None),
    "a tenant that is a path": lambda: token(tenant="../other"),
    "a tenant that is no text": lambda: token(tenant=["acme"]),
    "not three parts": lambda: "a.b",
    "nothing": lambda: "",
    "not base64": lambda: "!.!.!",
    "deeply nested": lambda: unsigned(HEAD, {}) + base64.urlsafe_b64encode(b"[" * 5000).decode(),
    "too long": lambda: token(more="x" * 9000),
    "critical extension": lambda: jwt.encode(
        claims(), RSA, algorithm="RS256", headers={**HEAD, "crit": ["exp2"], "exp2": 1}
    ),
}


@pytest.mark.parametrize("what", list(BAD))
async def test_a_bad_token_opens_nothing(what: str) -> None:
    assert await verify(BAD[what]()) is None


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_keys_that_a_token_brings_or_points_to_are_not_looked_at(name: str) -> None:
    async with key_server() as ours, key_server() as theirs:
        theirs.keys = [public(OTHER_RSA, "rsa", alg="RS256")]
        value: Any = {"jku": theirs.url, "x5u": theirs.url, "jwk": theirs.keys[0], "x5c": ["MIIB"]}[name]
        text = jwt.encode(claims(), OTHER_RSA, algorithm="RS256", headers={**HEAD, name: value})
        chosen = policy(ours.url)
        assert await Tokens(chosen, Jwks(chosen)).verify(text) is None
        assert (ours.asked, theirs.asked) == (1, 0)


async def test_what_the_settings_say_of_tenants_scopes_types_and_audiences_holds() -> None:
    prefixed = await verify(
        token(org="acme-2", tenant=None, roles=["sight:read", "sight:fly", "submit", 7]),
        tenant_claim="org",
        scope_claim="roles",
        scope_prefix="sight:",
    )
    assert prefixed is not None
    assert prefixed.tenant == "acme-2"
    assert prefixed.scopes == {Scope.READ}
    alone = await verify(token(tenant="ignored"), tenant_claim="")
    assert alone is not None
    assert alone.tenant == "default"
    assert await verify(token(typ="JWT"), types=("at+jwt", "JWT")) is not None
    assert await verify(token(typ="application/AT+JWT")) is not None
    assert await verify(token(aud=[AUDIENCE, "billing"]), strict_audience=False) is not None
    assert await verify(token(OTHER_RSA, "PS256", "pss"), algorithms=("PS256",)) is not None
    assert await verify(token(), algorithms=("ES256",)) is None


async def test_within_the_leeway_a_clock_may_be_wrong() -> None:
    assert await verify(token(exp=int(time.time()) - 10)) is not None
    assert await verify(token(iat=int(time.time()) + 10)) is not None


async def test_an_unknown_kid_is_asked_for_once_in_a_while_and_a_new_key_is_found() -> None:
    async with key_server() as server:
        clock, chosen = Clock(), policy(server.url)
        tokens = Tokens(chosen, Jwks(chosen, clock))
        assert await tokens.verify(token()) is not None
        for _ in range(20):
            assert await tokens.verify(token(OTHER_RSA, kid="new")) is None
        assert server.asked == 1
        server.keys = [public(OTHER_RSA, "new", alg="RS256")]
        clock.at += 31
        assert await tokens.verify(token(OTHER_RSA, kid="new")) is not None
        assert await tokens.verify(token()) is None  # the old one was withdrawn
        assert server.asked == 2


async def test_many_who_wait_for_the_keys_ask_once() -> None:
    async with key_server() as server:
        chosen = policy(server.url)
        tokens = Tokens(chosen, Jwks(chosen))
        found = await asyncio.gather(*(tokens.verify(token()) for _ in range(20)))
        assert all(found)
        assert server.asked == 1


async def test_known_keys_are_used_for_a_while_when_the_issuer_is_away_and_then_no_more() -> None:
    async with key_server() as server:
        clock, chosen = Clock(), policy(server.url)
        tokens = Tokens(chosen, Jwks(chosen, clock))
        assert await tokens.verify(token()) is not None
        server.answer = lambda: web.Response(status=500)
        clock.at += 3599
        assert await tokens.verify(token()) is not None
        assert server.asked == 2
        clock.at += 2
        with pytest.raises(BusyError):
            await tokens.verify(token())
        server.answer = None
        clock.at += 10
        assert await tokens.verify(token()) is not None


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(status=404),
        lambda: web.Response(text="no JSON"),
        lambda: web.json_response([]),
        lambda: web.json_response({"keys": []}),
        lambda: web.json_response({"keys": [1, {"kty": "?"}]}),
        lambda: web.Response(body=b"[" * 300_000),
    ],
    ids=["elsewhere", "404", "text", "list", "empty", "odd", "large"],
)
async def test_no_keys_is_told_as_such_and_nobody_is_let_in(answer: Callable[[], web.Response]) -> None:
    async with key_server() as server:
        server.answer = answer
        chosen = policy(server.url)
        credentials = Credentials(tokens=Tokens(chosen, Jwks(chosen)))
        parts = EdgeParts(identity=REQUIRED, limits=LimitPolicy(), credentials=credentials)
        async with (
            served(parts) as gateway,
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as session,
            session.get(f"{gateway.url}/v1/images/a") as found,
        ):
            assert (found.status, (await found.json(content_type=None))["code"]) == (503, "not_ready")
            assert int(found.headers["Retry-After"]) >= 1


async def test_a_token_opens_the_gateway_for_its_tenant_and_scopes() -> None:
    async with key_server() as server:
        chosen = policy(server.url)
        credentials = Credentials(tokens=Tokens(chosen, Jwks(chosen)))
        parts = EdgeParts(identity=REQUIRED, limits=LimitPolicy(), credentials=credentials)
        async with served(parts) as gateway, aiohttp.ClientSession() as session:

            async def ask(method: str, path: str, text: str) -> aiohttp.ClientResponse:
                bearer = {"Authorization": f"Bearer {text}"}
                async with session.request(method, f"{gateway.url}{path}", headers=bearer) as answer:
                    await answer.read()
                    return answer

            submitted = await ask("POST", "/v1/images", token(tenant="t-9"))
            assert (await submitted.json())["tenant"] == "t-9"
            assert (await ask("DELETE", "/v1/images/a", token())).status == 403
            assert (await ask("GET", "/v1/images/a", token(exp=NOW - 60))).status == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": None},
        {"audience": ""},
        {"algorithms": ("HS256",)},
        {"algorithms": ("RS256", "none")},
        {"jwks_url": "http://issuer.example/jwks"},
        {"jwks_url": "file:///etc/passwd"},
    ],
)
def test_settings_that_would_open_a_hole_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        policy(
            **{
                "url": "https://issuer.example/jwks",
                **{("url" if k == "jwks_url" else k): v for k, v in changes.items()},
            }
        )
