"""Renders every failure of a request as `application/problem+json`, and gives nothing else away."""

import json
import logging
import math
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from infra.http import metrics
from infra.http.requests import REQUEST_ID, Handler, edge_of
from schemas.errors import BusyError, DeliveryError, FatalError, RejectedError, SightstreamError
from schemas.problems import CONTENT_TYPE, ProblemError

log = logging.getLogger(__name__)

_INTERNAL = ProblemError(500, "internal_error", "something went wrong here; the request id finds it in the log")
_UNREADABLE = ProblemError(400, "bad_request", "the request could not be read")
# What aiohttp itself answers with; anything else is named after its status.
_CODES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
    HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
    HTTPStatus.EXPECTATION_FAILED: "invalid_header",
}
_DETAILS = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path has no such method; Allow names those it has",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is over the bound",
}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what handlers and inner middlewares raise. A failure after the answer began ends the connection."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        response = render(request, _of_aiohttp(error))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (SightstreamError, web.RequestPayloadError, HttpProcessingError) as error:
        if edge_of(request).prepared:
            raise
        return render(request, problem_of(error))
    except Exception as error:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client has gone") from error
        log.exception("a request failed", extra=_place(request))
        if edge_of(request).prepared:
            raise ConnectionResetError("the answer had begun") from error
        return render(request, _INTERNAL)


def problem_of(error: Exception) -> ProblemError:
    """What a caller is told of an error made on purpose. Upstream words, paths and reasons that are nobody's business stay here."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RejectedError):
        return ProblemError(422, error.reason.value, "this input cannot be processed")
    if isinstance(error, BusyError):
        return ProblemError(
            503, error.reason.value, "something needed does not answer now", max(1.0, error.retry_after_s)
        )
    if isinstance(error, DeliveryError | FatalError):
        log.error("a request could not be confirmed: %s", error)
        return ProblemError(503, "not_confirmed", "Kafka did not confirm in time; send it again", 1.0)
    if isinstance(error, web.RequestPayloadError | HttpProcessingError):
        return _UNREADABLE
    log.error("a request failed", exc_info=error)
    return _INTERNAL


def render(request: web.BaseRequest, problem: ProblemError) -> web.Response:
    """The answer that says so."""
    metrics.REFUSED.labels(problem.code).inc()
    headers = {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="sightstream"'
    body = json.dumps(problem.document(request.get(REQUEST_ID)), separators=(",", ":"), default=str)
    response = web.Response(status=problem.status, text=body, content_type=CONTENT_TYPE, headers=headers)
    if problem.status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
        response.force_close()  # what still comes of the body is no next request
    return response


def _of_aiohttp(error: web.HTTPException) -> ProblemError:
    status = HTTPStatus(error.status)
    code = _CODES.get(status) or status.phrase.lower().replace(" ", "_").replace("-", "_")
    return ProblemError(status, code, _DETAILS.get(status, status.phrase.lower()))


def _place(request: web.Request) -> dict[str, str]:
    return {"request_id": str(request.get(REQUEST_ID, "")), "method": request.method, "path": request.path}
