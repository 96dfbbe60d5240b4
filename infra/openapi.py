"""Serves the OpenAPI document of the HTTP API: `GET /v1/openapi.json`."""

import hashlib
from pathlib import Path

from aiohttp import web

DOCUMENT = Path(__file__).with_suffix(".json")


def add_routes(app: web.Application) -> None:
    """Mount the document, for everybody: it tells nothing of anybody."""
    content = DOCUMENT.read_bytes()
    tag = hashlib.sha256(content).hexdigest()[:20]

    async def document(request: web.Request) -> web.Response:
        known = any(etag.value == tag for etag in request.if_none_match or ())
        response = web.Response(status=304) if known else web.Response(body=content, content_type="application/json")
        response.etag = tag
        response.headers["Cache-Control"] = "no-cache"
        return response

    app.router.add_get("/v1/openapi.json", document)
