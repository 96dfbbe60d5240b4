"""Every failure is a problem document with a stable code, and gives nothing away."""

import json
import logging
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from infra.http.policies import IdentityPolicy, LimitPolicy
from infra.http.problems import problem_of
from infra.http.stack import EdgeParts
from schemas.errors import (
    BusyError,
    ConfigurationError,
    DeliveryError,
    FatalError,
    Reason,
    RejectedError,
    SightstreamError,
)
from schemas.problems import CONTENT_TYPE, ProblemError
from tests.support.edge import raw, served

OPEN = EdgeParts(identity=IdentityPolicy(), limits=LimitPolicy())


def _failing(errors: dict[str, Exception]) -> Any:
    def add(table: web.RouteTableDef) -> None:
        @table.get("/v1/fail/{how}")
        async def fail(request: web.Request) -> web.Response:
            raise errors[request.match_info["how"]]

    return add


FAILURES: dict[str, tuple[Exception, int, str]] = {
    "problem": (ProblemError(409, "image_unfinished", "come again", 2.2, {"at": 3}), 409, "image_unfinished"),
    "rejected": (RejectedError(Reason.IMAGE_CORRUPT, "/secret/path is broken"), 422, "image_corrupt"),
    "busy": (BusyError(Reason.STORAGE_UNAVAILABLE, "10.0.0.7 said no", 4), 503, "storage_unavailable"),
    "delivery": (DeliveryError("broker-3.internal is away"), 503, "not_confirmed"),
    "fatal": (FatalError("the producer is dead"), 503, "not_confirmed"),
    "operator": (ConfigurationError("password wrong"), 500, "internal_error"),
    "bug": (ValueError("secret"), 500, "internal_error"),
    "cut": (ConnectionResetError("the database hung up"), 500, "internal_error"),
    "late": (TimeoutError("secret"), 500, "internal_error"),
    "large": (web.HTTPRequestEntityTooLarge(10, 11), 413, "body_too_large"),
    "teapot": (web.HTTPUnprocessableEntity(text="<html>secret"), 422, "unprocessable_entity"),
}


@pytest.mark.parametrize("how", list(FAILURES))
async def test_each_failure_is_a_problem_with_its_code_and_no_words_of_others(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, status, code = FAILURES[how]
    with caplog.at_level(logging.CRITICAL):
        async with (
            served(OPEN, _failing({how: error})) as server,
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}/v1/fail/{how}", headers={"X-Request-Id": "mine-1"}) as answer,
        ):
            text = await answer.text()
    document = json.loads(text)
    assert (answer.status, document["status"], document["code"]) == (status, status, code)
    assert answer.content_type == CONTENT_TYPE
    assert document["request_id"] == answer.headers["X-Request-Id"] == "mine-1"
    assert document["type"] == f"urn:sightstream:problem:{code}"
    for word in ("secret", "10.0.0.7", "broker-3", "password", "Traceback", "hung up"):
        assert word not in text
    if how == "problem":
        assert document["at"] == 3
        assert answer.headers["Retry-After"] == "3"


async def test_paths_and_methods_that_there_are_not_are_problems_too() -> None:
    async with served(OPEN) as server, aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/nothing") as answer:
            assert (answer.status, (await answer.json(content_type=CONTENT_TYPE))["code"]) == (404, "not_found")
        async with session.patch(f"{server.url}/v1/images/a") as answer:
            assert (answer.status, (await answer.json(content_type=CONTENT_TYPE))["code"]) == (
                405,
                "method_not_allowed",
            )
            assert set(answer.headers["Allow"].split(",")) >= {"GET", "DELETE"}


async def test_a_failure_after_the_answer_began_ends_the_connection() -> None:
    async with served(OPEN) as server:
        got = await raw(server.port, b"GET /v1/events?break=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert not body.endswith(b"0\r\n\r\n")  # which would say that it is complete
    assert b"problem" not in body


@pytest.mark.parametrize(
    "body",
    [
        b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n",
    ],
)
async def test_a_body_that_is_not_http_is_the_callers_fault(body: bytes) -> None:
    async with served(OPEN) as server:
        got = await raw(server.port, body)
    assert got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/images/a HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"A%d: 1\r\n" % i for i in range(200)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00b: c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["header", "path", "many", "two lengths", "length and chunks", "two hosts", "nul", "tls"],
)
async def test_headers_beyond_bounds_or_rules_are_refused_and_cost_no_5xx(head: bytes) -> None:
    async with served(OPEN) as server:
        got = await raw(server.port, head)
    assert got[9:10] == b"4", got[:80]


@pytest.mark.parametrize("given", ["a" * 65, "a b", "ä", "", "a\tb"])
async def test_a_request_id_that_could_do_harm_is_replaced(given: str) -> None:
    async with (
        served(OPEN) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/healthz", headers={"X-Request-Id": given}) as answer,
    ):
        assert len(answer.headers["X-Request-Id"]) == 32


def test_every_error_made_on_purpose_has_an_answer() -> None:
    kinds = {kind for kind in SightstreamError.__subclasses__() if kind.__module__ == "schemas.errors"}
    made = {
        RejectedError: RejectedError(Reason.IMAGE_CORRUPT, "x"),
        BusyError: BusyError(Reason.FETCH_FAILED, "x"),
        ConfigurationError: ConfigurationError("x"),
        FatalError: FatalError("x"),
        DeliveryError: DeliveryError("x"),
    }
    assert kinds == set(made)
    assert {problem_of(error).status for error in made.values()} == {422, 500, 503}
