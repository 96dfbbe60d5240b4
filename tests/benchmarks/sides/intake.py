"""Serves `POST /v1/images` as a process of its own: a bare handler, or the gateway behind its whole edge with a key and all checks.

`python -m tests.benchmarks.sides.intake bare|gateway BOOTSTRAP PREFIX FOLDER` says where it is in a line of JSON.
"""

import asyncio
import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from infra.http.identity import Credentials
from infra.http.policies import Allowance, IdentityPolicy, LimitPolicy
from infra.http.slow_clients import runner_options
from infra.http.stack import EdgeParts, protect
from infra.key_ring import KeyRing
from infra.keys import make_key
from producers.gateway import Gateway, add_routes
from producers.gateway_policy import GatewayPolicy
from producers.publisher import Publisher, Receipt
from producers.upload_policy import UploadPolicy
from schemas.records import ImageRef, new_image_id

_KEY = make_key("bench", ["submit"], "bench", datetime.now(UTC), None)


async def _serve(side: str, publisher: Publisher, folder: Path) -> None:
    app = _bare(publisher, folder) if side == "bare" else _gateway(publisher, folder)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, **runner_options(LimitPolicy()))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"port": runner.addresses[0][1], "key": _KEY.text}), flush=True)
    await asyncio.Event().wait()


def _bare(publisher: Publisher, folder: Path) -> web.Application:
    """What nobody can leave out: read the form, hash, write the file, await Kafka's confirmation."""

    async def submit(request: web.Request) -> web.Response:
        part = await (await request.multipart()).next()
        content = await part.read()  # type: ignore[union-attr]
        path = folder / f"{hashlib.sha256(content).hexdigest()}.jpg"
        await asyncio.to_thread(path.write_bytes, bytes(content))
        ref = ImageRef(id=new_image_id(), uri=path.as_uri())
        receipt: Receipt = await asyncio.wrap_future(publisher.publish(ref))
        return web.json_response({"id": ref.id, "offset": receipt.offset}, status=202)

    folder.mkdir(parents=True, exist_ok=True)
    app = web.Application(client_max_size=1 << 25)
    app.router.add_post("/v1/images", submit)
    return app


def _gateway(publisher: Publisher, folder: Path) -> web.Application:
    keys = KeyRing()
    keys.fold(_KEY.record)
    limits = LimitPolicy(every_tenant=Allowance(requests_per_s=1_000_000, images_per_day=1_000_000_000))
    credentials = Credentials(keys=keys, keys_age_s=lambda: 0.0, keys_stale_s=600.0)
    app = web.Application()
    protect(app, EdgeParts(identity=IdentityPolicy(mode="required"), limits=limits, credentials=credentials))
    add_routes(app, Gateway(publisher, GatewayPolicy(), UploadPolicy(url=str(folder))))
    return app


def main() -> None:
    """Serve until killed."""
    side, bootstrap, prefix, folder = sys.argv[1:]
    with Publisher.connect(bootstrap, prefix=prefix) as publisher:
        asyncio.run(_serve(side, publisher, Path(folder)))


if __name__ == "__main__":
    main()
