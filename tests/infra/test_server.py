"""Health, readiness and metrics over HTTP."""

import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from infra.sections import HttpSettings
from infra.server import build, serving
from infra.telemetry import Health, describe_build
from schemas.errors import ConfigurationError


async def _get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await (answer.json() if answer.content_type == "application/json" else answer.text())


async def test_health_says_what_is_missing_and_by_whom() -> None:
    health, state = Health(), {"assigned": "no partition yet", "producer": None}
    health.must_be_ready("worker", lambda: state["assigned"])
    health.must_live("producer", lambda: state["producer"])
    async with serving(build(health), HttpSettings(port=0)) as url:
        assert await _get(f"{url}/healthz") == (200, {"status": "ok"})
        assert await _get(f"{url}/readyz") == (503, {"status": "not ready", "worker": "no partition yet"})
        state["assigned"] = None
        assert await _get(f"{url}/readyz") == (200, {"status": "ready"})
        state["producer"] = "fenced"
        assert await _get(f"{url}/healthz") == (503, {"status": "failing", "producer": "fenced"})
        assert (await _get(f"{url}/readyz"))[0] == 503


async def test_a_stopping_process_is_alive_and_not_ready() -> None:
    health = Health()
    health.stopping()
    async with serving(build(health), HttpSettings(port=0)) as url:
        assert (await _get(f"{url}/healthz"))[0] == 200
        assert (await _get(f"{url}/readyz"))[0] == 503


async def test_a_probe_that_raises_is_a_complaint() -> None:
    health = Health()
    health.must_live("odd", lambda: str(1 / 0))
    assert "ZeroDivisionError" in health.alive()["odd"]


async def test_metrics_are_prometheus_text_with_the_build() -> None:
    describe_build("abc123", "sha256:00")
    async with serving(build(Health()), HttpSettings(port=0)) as url:
        _, text = await _get(f"{url}/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["sightstream_build_info"].samples[0].labels["git_sha"] == "abc123"


async def test_routes_of_others_are_mounted() -> None:
    def add(app: web.Application) -> None:
        async def hello(_: web.Request) -> web.Response:
            return web.json_response("hello")

        app.router.add_get("/hello", hello)

    async with serving(build(Health(), add), HttpSettings(port=0)) as url:
        assert await _get(f"{url}/hello") == (200, "hello")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::"])
async def test_other_machines_are_refused_unless_asked_for(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"http\.public"):
        async with serving(build(Health()), HttpSettings(host=host, port=0)):
            pass


async def test_public_is_a_choice() -> None:
    async with serving(build(Health()), HttpSettings(host="0.0.0.0", port=0, public=True)) as url:
        assert url.startswith("http://0.0.0.0:")


async def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot serve HTTP"):
        async with serving(build(Health()), HttpSettings(port=taken.getsockname()[1])):
            pass
