"""`GET /v1/webhooks/deliveries`: which callbacks were called, and what came of it."""

from datetime import datetime

from aiohttp import web

from schemas.identity import Scope
from sinks.deliveries import Attempt, Delivery, DeliveryQueue
from sinks.results_http import as_problems
from sinks.results_query import Query, caller
from sinks.results_view import time_text
from sinks.webhook_signature import message_id


def add_routes(app: web.Application, queue: DeliveryQueue) -> None:
    """Mount the route. It expects the caller in `request["principal"]`, and a middleware that renders ProblemError."""

    async def deliveries(request: web.Request) -> web.StreamResponse:
        tenant = caller(request, Scope.READ)
        query = Query(request, ("batch", "limit", "cursor"))
        page = await queue.deliveries(tenant, query.text("batch", 200), query.limit(), query.cursor())
        told = {"deliveries": [_told(tenant, delivery) for delivery in page.items], "next": page.next}
        return web.json_response(told, headers={"Cache-Control": "no-store"})

    app.router.add_get("/v1/webhooks/deliveries", as_problems(deliveries))


def _told(tenant: str, delivery: Delivery) -> dict[str, object]:
    last = delivery.attempts[-1] if delivery.attempts else None
    return {
        "id": message_id(tenant, delivery.batch_id),
        "batch_id": delivery.batch_id,
        "url": delivery.url,
        "status": delivery.state,
        "attempts": len(delivery.attempts),
        "response_status": None if last is None else last.status,
        "error": None if last is None else last.error,
        "created_at": time_text(delivery.created_at),
        "last_attempt_at": _time(None if last is None else last.at),
        "next_attempt_at": _time(delivery.next_attempt_at),
        "log": [_attempt(attempt) for attempt in delivery.attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "at": time_text(attempt.at),
        "response_status": attempt.status,
        "error": attempt.error,
        "duration_ms": attempt.duration_ms,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(moment)
