"""What the edge keeps of a request while it is handled, and where it really comes from."""

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = "request_id"
"""Under this name a request's id is kept, as in `X-Request-Id`."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EDGE = "edge"


class Edge:
    """The edge's own notes on a request; one object, whatever copies of the request there are."""

    __slots__ = ("headers", "prepared", "route")

    def __init__(self, route: str = "") -> None:
        self.headers: dict[str, str] = {}
        self.prepared = False
        self.route = route


def edge_of(request: web.BaseRequest) -> Edge:
    """The notes; empty ones for a request that did not come through the middlewares."""
    edge: Edge | None = request.get(_EDGE)
    if edge is None:
        edge = request[_EDGE] = Edge()
    return edge


def begin(request: web.Request) -> Edge:
    """Begin the notes, and give the request its id: the caller's own, if it is harmless, else a fresh one."""
    resource = request.match_info.route.resource
    edge = request[_EDGE] = Edge("" if resource is None else resource.canonical)
    given = request.headers.get("X-Request-Id", "")
    name = given if _NAME.fullmatch(given) else os.urandom(16).hex()
    request[REQUEST_ID] = edge.headers["X-Request-Id"] = name
    return edge


def seen_through(request: web.Request, proxies: Sequence[IPv4Network | IPv6Network]) -> web.Request:
    """The request as the last proxy that is not trusted, or the client itself, sent it: address and scheme.

    Of `X-Forwarded-For` the rightmost address counts that is no trusted proxy's: what stands left of it anybody may have written.
    """
    if not proxies or not _within(request.remote, proxies):
        return request
    hops = [hop.strip() for hop in ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")]
    remote = request.remote
    for hop in reversed(hops):
        if not _is_address(hop):
            break
        remote = hop
        if not _within(hop, proxies):
            break
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme).strip().lower()
    return request.clone(remote=remote or "", scheme=scheme if scheme in {"http", "https"} else request.scheme)


def route_of(request: web.Request) -> str:
    """The route's pattern, such as `/v1/images/{id}`; empty where there is none. What callers choose is not in it."""
    return edge_of(request).route


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _within(text: str | None, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(text or "")
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks if network.version == address.version)
