"""The stream of a gateway's results, followed across restarts: a gap is always told."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp

from producers.client_http import Connection, UnreachableError
from producers.client_images import Failure, Image
from schemas.problems import ProblemError

_PATH = "/v1/stream"
_ANSWERED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An image has its outcome: `image` if it is completed, else `failure`. `cursor` resumes after it."""

    image_id: str
    batch_id: str | None
    cursor: str
    image: Image | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What came before this is not told, or not all of it: whoever needs everything reads it elsewhere, now. `reason`: a stable word."""

    reason: str
    cursor: str


async def follow(
    connection: Connection, wanted: Mapping[str, Any], since: str | None = None
) -> AsyncGenerator[Outcome | Gap, None]:
    """Outcomes that `wanted` (a filter of docs/notifier.md) lets through, without end. The first is a Gap unless `since` could be resumed.

    It connects again by itself. Raises ProblemError where the gateway refuses, UnreachableError where none is reached for `retry_for_s`.
    """
    cursor, tries = since, 0
    unreachable_s = 0.0
    while True:
        pause_s = 0.0
        try:
            socket = await connection.listen(_PATH)
        except (aiohttp.ClientError, OSError) as error:
            _raise_if_refused(error)
        else:
            unreachable_s = 0.0
            async with aclosing(_messages(socket, wanted, cursor)) as messages:
                async for message in messages:
                    cursor = message.get("cursor", cursor)
                    pause_s = message.get("reconnect_after_ms", 0) / 1000
                    item = _item(message)
                    if item is not None:
                        yield item
                    if message["type"] != "subscribed":
                        tries = 0
        pause_s += connection.jitter_s(tries)
        tries, unreachable_s = tries + 1, unreachable_s + pause_s
        if unreachable_s > connection.policy.retry_for_s:
            raise UnreachableError("the stream of results cannot be reached")
        await connection.pause(pause_s)


async def _messages(
    socket: aiohttp.ClientWebSocketResponse, wanted: Mapping[str, Any], since: str | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Subscribe, and give each message until the connection ends. Raises ProblemError where no answer comes, as behind a bad proxy."""
    ask: dict[str, Any] = {"type": "subscribe", "filter": dict(wanted)}
    if since is not None:
        ask["since"] = since
    try:
        await socket.send_json(ask)
        frame = await socket.receive(timeout=_ANSWERED_WITHIN_S)
        while frame.type is aiohttp.WSMsgType.TEXT:
            for message in json.loads(frame.data):
                yield message
            frame = await socket.receive()
    except TimeoutError as error:
        raise ProblemError(504, "stream_silent", "the stream was opened, but says nothing") from error
    except ConnectionError:
        return
    finally:
        await socket.close()


def _item(message: dict[str, Any]) -> Outcome | Gap | None:
    """What a message means to whoever follows; None for what only the connection needs. Raises ProblemError for a refused subscription."""
    kind = message["type"]
    if kind == "result":
        image = Image.parse_result(message)
        return Outcome(image_id=image.id, batch_id=image.batch_id, cursor=message["cursor"], image=image)
    if kind == "failed":
        failure = Failure(**{name: message[name] for name in ("code", "message", "stage", "attempts")})
        return Outcome(
            image_id=message["image_id"], batch_id=message["batch_id"], cursor=message["cursor"], failure=failure
        )
    if kind == "gap" or (kind == "subscribed" and not message["recovered"]):
        return Gap(reason=message.get("reason") or "start", cursor=message["current"])
    if kind == "error":
        raise ProblemError(400, message["code"], message["detail"])
    return None


def _raise_if_refused(error: Exception) -> None:
    """A handshake that was answered with a refusal is not tried again: it would be refused again."""
    if isinstance(error, aiohttp.WSServerHandshakeError) and error.status < 500 and error.status not in {408, 429}:
        raise ProblemError(error.status, "stream_refused", f"the stream was refused: {error.status}") from error
