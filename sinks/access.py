"""Who may listen, to what and how long: callers hear their own tenant alone, until their credential ends."""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import web

from schemas.identity import REQUEST_KEY, Principal, Scope
from schemas.problems import ProblemError
from sinks.outbox import Close, Closing, Outbox

Stands = Callable[[Principal], bool]
"""Whether a credential that was good still counts, such as not being revoked. Asked again and again: answers from memory, at once."""


class Access:
    """Streams for callers who were verified before (`Principal` in the request). Used on one event loop only."""

    def __init__(
        self, stands: Stands = lambda _: True, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._stands, self._now = stands, now
        self._watched: dict[Principal, set[Outbox]] = {}

    def caller(self, request: web.Request) -> Principal:
        """Who asks. Raises ProblemError for somebody unknown, or who may not read."""
        principal = request.get(REQUEST_KEY)
        if not isinstance(principal, Principal) or self.end_of(principal):
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", "a stream needs a valid credential")
        if not principal.may(Scope.READ):
            raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", "this credential may not read")
        return principal

    def end_of(self, principal: Principal) -> str | None:
        """Why a credential counts no more; None while it does."""
        if principal.expires_at is not None and principal.expires_at <= self._now():
            return "credential expired"
        return None if self._stands(principal) else "credential revoked"

    def enter(self, principal: Principal, outbox: Outbox) -> None:
        """Watch over a caller's connection until `leave`."""
        self._watched.setdefault(principal, set()).add(outbox)

    def leave(self, principal: Principal, outbox: Outbox) -> None:
        """Undo `enter`."""
        outboxes = self._watched[principal]
        outboxes.remove(outbox)
        if not outboxes:
            del self._watched[principal]

    def close_if_ended(self, principal: Principal, outbox: Outbox) -> None:
        """Close a connection whose credential has ended; what waits for it is not told any more, nor what it asks for now."""
        reason = self.end_of(principal)
        if reason is not None:
            outbox.abort(Closing(Close.CREDENTIAL, reason))

    def sweep(self) -> None:
        """`close_if_ended` for everybody."""
        for principal, outboxes in self._watched.items():
            if self.end_of(principal) is not None:
                for outbox in outboxes:
                    self.close_if_ended(principal, outbox)
