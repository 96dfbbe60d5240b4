"""A gateway in the test's own process, behind the edge that protects it in earnest, and the bodies that callers send to it."""

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from infra.http.policies import IdentityPolicy, LimitPolicy
from infra.http.stack import EdgeParts, protect
from infra.sections import HttpSettings
from infra.server import build, serving
from infra.telemetry import Health
from producers.confirming import Sender
from producers.gateway import Gateway, Outcomes, add_routes
from producers.gateway_policy import GatewayPolicy
from producers.idempotency import KnownImages
from producers.upload_policy import UploadPolicy
from schemas.identity import REQUEST_KEY, Principal, Scope

_POLICY, _LIMITS = GatewayPolicy(), LimitPolicy()
TENANT, SCOPES = "X-Test-Tenant", "X-Test-Scopes"
Part = bytes | tuple[str, str]


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Any

    @property
    def code(self) -> str:
        """Of a problem."""
        return str(self.body["code"])


@dataclass(slots=True)
class Caller:
    """Talks to one gateway."""

    url: str
    gateway: Gateway
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict)

    async def post(self, path: str, **how: Any) -> Answer:
        """A request and its answer."""
        return await self.call("POST", path, **how)

    async def call(self, method: str, path: str, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        """Any request and its answer."""
        if isinstance(how.get("data"), bytes):
            how["data"] = io.BytesIO(how["data"])
        url = path if "://" in path else self.url + path
        async with self.session.request(method, url, headers=self.headers | (headers or {}), **how) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text) if text else None, response.headers)

    async def send(self, *parts: Part, query: str = "", **headers: str) -> Answer:
        """A form: fields as (name, value), files as bytes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        body = form(parts)
        return await self.post(f"/v1/images{query}", data=body, headers=given | {"Content-Type": FORM})


BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(parts: Sequence[Part], name: str = "a.jpg") -> bytes:
    """A multipart body as clients write it."""
    out = bytearray()
    for part in parts:
        out += f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
        if isinstance(part, bytes):
            out += f'name="file"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'.encode() + part
        else:
            out += f'name="{part[0]}"\r\n\r\n{part[1]}'.encode()
        out += b"\r\n"
    return bytes(out) + f"--{BOUNDARY}--\r\n".encode()


@asynccontextmanager
async def gateway_at(
    publisher: Sender,
    folder: Path,
    *,
    policy: GatewayPolicy = _POLICY,
    uploads: UploadPolicy | None = None,
    limits: LimitPolicy = _LIMITS,
    known: KnownImages | None = None,
    outcomes: Outcomes | None = None,
) -> AsyncIterator[Caller]:
    """A gateway on loopback that keeps uploads in `folder`; who sends `X-Test-Tenant` is that tenant."""
    gateway = Gateway(publisher, policy, uploads or UploadPolicy(url=str(folder)), known, outcomes)

    def mount(app: web.Application) -> None:
        protect(app, EdgeParts(identity=IdentityPolicy(), limits=limits))
        app.middlewares.append(_as_tenant)
        add_routes(app, gateway)

    async with serving(build(Health(), mount), HttpSettings(port=0)) as url, aiohttp.ClientSession() as session:
        yield Caller(url, gateway, session)


@web.middleware
async def _as_tenant(request: web.Request, handler: Any) -> web.StreamResponse:
    tenant = request.headers.get(TENANT)
    if tenant:
        named = request.headers.get(SCOPES)
        scopes = frozenset(scope for scope in Scope if named is None or scope in named.split())
        request[REQUEST_KEY] = Principal(tenant=tenant, subject="test", scopes=scopes)
    answer: web.StreamResponse = await handler(request)
    return answer
