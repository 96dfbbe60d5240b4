"""Headers that every answer carries, streamed ones too: security, CORS, rate limits, the request's id."""

from aiohttp import web

from infra.http.requests import edge_of

# Of what is no page nothing runs and nothing is loaded; the page brings a policy of its own (`infra/page/routes.py`).
_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_ALWAYS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}


async def put_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """For `on_response_prepare`. What a handler has set itself stays, but for the server's name, which says no versions."""
    edge = edge_of(request)
    edge.prepared = True
    headers = response.headers
    for name, value in (_ALWAYS | edge.headers).items():
        if name == "Vary" and name in headers:
            headers[name] = _with(headers[name], value)
        else:
            headers.setdefault(name, value)
    headers["Server"] = "sightstream"


def _with(vary: str, name: str) -> str:
    names = [part.strip() for part in vary.split(",")]
    return vary if name in names or "*" in names else ", ".join([*names, name])
