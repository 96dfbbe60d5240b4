"""The way in over HTTP: `POST /v1/images` and `POST /v1/uploads`.

A 202 is given only after Kafka confirmed; nothing that matters is in this process alone. `docs/http.md` describes what callers see.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web

from producers import metrics
from producers.bodies import chunks, media_type, whole
from producers.confirming import Confirming, Sender
from producers.desk import Desk, Taker, problem_of
from producers.forms import RAW_TYPES, receive, take_body
from producers.gateway_policy import GatewayPolicy
from producers.idempotency import KeyedIds, KnownImages, Memory, NothingKnown, check_key
from producers.image_headers import Kind
from producers.options import OptionError, Options, check_sha256, parse_object, read_texts
from producers.scan import open_scanner
from producers.spool import Received, Spool
from producers.submission import Submission
from producers.upload_policy import UploadPolicy
from producers.upload_store import UploadStore, address, direct
from producers.upload_tokens import Grant, UploadTokens
from schemas.errors import RejectedError
from schemas.identity import IMAGES_KEY, REQUEST_KEY, Principal, Scope
from schemas.problems import ProblemError

log = logging.getLogger(__name__)

_KINDS: dict[str, Kind] = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
_DRAIN_S = 10.0
_MAX_ASK = 4096


class Outcomes(Protocol):
    """Who waits for results: `sinks.results_outcomes`. Both return the JSON of API v1, or None where it does not come in time.

    `old`: those of the images that were submitted before, and so may have had their outcome for long.
    """

    async def image(self, tenant: str, image_id: str, timeout_s: float, old: Sequence[str] = ()) -> str | None:
        """The image, once it has its outcome."""

    async def batch(
        self, tenant: str, batch_id: str, image_ids: Sequence[str], timeout_s: float, old: Sequence[str] = ()
    ) -> str | None:
        """The batch, once all these images of it have theirs."""


class NoOutcomes:
    """Where nobody tells outcomes: every wait ends at once."""

    async def image(self, tenant: str, image_id: str, timeout_s: float, old: Sequence[str] = ()) -> str | None:
        """None."""

    async def batch(
        self, tenant: str, batch_id: str, image_ids: Sequence[str], timeout_s: float, old: Sequence[str] = ()
    ) -> str | None:
        """None."""


class Gateway:
    """Takes images for Kafka. Made on the event loop that serves it; `close` when no request is in flight any more.

    `known` and `outcomes` may be left out: then mistakes with an Idempotency-Key are noticed for a while only, and nothing is waited for.
    Raises ConfigurationError where store or scanner cannot be.
    """

    def __init__(
        self,
        publisher: Sender,
        policy: GatewayPolicy,
        uploads: UploadPolicy,
        known: KnownImages | None = None,
        outcomes: Outcomes | None = None,
    ) -> None:
        self.policy, self.upload_policy = policy, uploads
        self.outcomes = outcomes or NoOutcomes()
        self.uploads = UploadStore(uploads)
        self.tokens = UploadTokens(uploads.secret)
        self.desk = Desk(
            policy=policy,
            upload_policy=uploads,
            uploads=self.uploads,
            scanner=open_scanner(uploads.scanner, uploads.scan_timeout_s, uploads.scans),
            kafka=Confirming(publisher, policy.max_unconfirmed),
            memory=Memory(known or NothingKnown()),
        )

    async def close(self) -> None:
        """Finish what goes on without its caller: batches whose connection died."""
        if self.desk.tasks:
            await asyncio.wait(self.desk.tasks, timeout=_DRAIN_S)
        self.uploads.close()


def add_routes(app: web.Application, gateway: Gateway) -> None:
    """Mount the routes; the gateway is closed with the application. They need `Principal`s in requests, and problems to be rendered."""
    routes = _Routes(gateway)
    app.router.add_post("/v1/images", routes.submit)
    app.router.add_post("/v1/uploads", routes.ask)
    app.router.add_put("/v1/uploads/{token}", routes.put)

    async def close(_: web.Application) -> None:
        await gateway.close()

    app.on_cleanup.append(close)


class _Routes:
    def __init__(self, gateway: Gateway, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._gateway, self._desk, self._now = gateway, gateway.desk, now

    async def submit(self, request: web.Request) -> web.Response:
        """`POST /v1/images`."""
        tenant = _tenant(request)
        key = check_key(request.headers.get("Idempotency-Key"))
        wait_s, options = self._read_query(request)
        with self._desk.memory.working_on(tenant, key) if key else nullcontext():
            keyed = KeyedIds(self._desk.memory, tenant, key) if key else None
            submission = Submission(self._desk, tenant, keyed)
            await self._take(request, submission, options)
        request[IMAGES_KEY] = submission.accepted
        _count(submission)
        answer = _answer_batch(submission) if submission.several else _answer_one(submission)
        return await self._await_outcomes(submission, answer, wait_s)

    async def ask(self, request: web.Request) -> web.Response:
        """`POST /v1/uploads`."""
        tenant = _tenant(request)
        _refuse_query(request)
        if media_type(request) != "application/json":
            raise ProblemError(415, "unsupported_media_type", "what is asked for is said in JSON")
        try:
            kind, sha256 = self._read_ask(parse_object(await whole(request, _MAX_ASK)))
        except OptionError as error:
            raise ProblemError(400, "invalid_request", str(error)) from error
        expires_at = self._now().timestamp() + self._gateway.upload_policy.signed_s
        if self._gateway.uploads.folder:
            path = address(tenant, sha256, kind) if sha256 else direct(tenant, kind)
            token = self._gateway.tokens.write(Grant(path, kind, sha256, expires_at))
            uri, url = self._gateway.uploads.uri(path), f"/v1/uploads/{token}"
            headers = {"Content-Type": _type_of(kind)}
        else:
            uri, url, headers = await self._gateway.uploads.sign(tenant, kind)
        when = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return _json(201, {"uri": uri, "method": "PUT", "url": url, "headers": headers, "expires_at": when})

    async def put(self, request: web.Request) -> web.Response:
        """`PUT /v1/uploads/{token}`: the token is the credential."""
        grant = self._gateway.tokens.read(request.match_info["token"], self._now().timestamp())
        if media_type(request) not in RAW_TYPES:
            raise ProblemError(415, "unsupported_media_type", "the body is an image, and its Content-Type says so")
        most = self._gateway.upload_policy.max_bytes
        with self._desk.open_spool() as spool:
            async with aclosing(chunks(request, most + 1)) as body:
                await receive(body, spool)
            image = await _expect(spool, grant)
            await Taker(self._desk, "", None).store(grant.path, image)
        return _json(201, {"uri": self._gateway.uploads.uri(grant.path), "sha256": image.sha256, "bytes": image.size})

    async def _take(self, request: web.Request, submission: Submission, options: Options) -> None:
        try:
            await take_body(request, self._desk, submission, options)
            await submission.close()
        except ProblemError as problem:
            if submission.batch_id is not None:
                retried = problem.status >= 500 or problem.status == 408
                await asyncio.shield(self._desk.start(submission.abandon(problem.code, retried=retried)))
                problem.extra.update(_batch_members(submission))
            raise
        except BaseException:  # the client has gone, or we are ending: what has come stays
            self._desk.start(submission.abandon("connection_lost", retried=True))
            raise

    async def _await_outcomes(self, submission: Submission, answer: web.Response, wait_s: float) -> web.Response:
        taken = [entry for entry in submission.entries if entry.ref and not entry.problem]
        ids = [entry.ref.id for entry in taken if entry.ref]
        old = [entry.ref.id for entry in taken if entry.ref and entry.known]
        if not (wait_s and ids):
            return answer
        outcomes, tenant = self._gateway.outcomes, submission.tenant
        if submission.several and submission.batch_id:
            text = await outcomes.batch(tenant, submission.batch_id, ids, wait_s, old)
        else:
            text = await outcomes.image(tenant, ids[0], wait_s, old)
        if text is None:
            return answer
        headers = {name: value for name, value in answer.headers.items() if name != "Content-Type"}
        return web.Response(status=200, text=text, headers=headers, content_type="application/json")

    def _read_query(self, request: web.Request) -> tuple[float, Options]:
        """Seconds to wait, and the options of a raw body."""
        if not request.query_string:
            return 0.0, Options()
        given = list(request.query.items())
        waits = [text for name, text in given if name == "wait"]
        rest = [(name, text) for name, text in given if name != "wait"]
        try:
            wait_s = float(waits[0]) if waits else 0.0
        except ValueError:
            wait_s = -1.0
        most = self._gateway.policy.max_wait_s
        if len(waits) > 1 or not 0 <= wait_s <= most:
            raise ProblemError(400, "invalid_query", f"wait is a number in 0..{most:g}, once")
        if rest and media_type(request) not in RAW_TYPES:
            raise ProblemError(400, "invalid_query", "options stand in the query for a raw body only")
        try:
            return wait_s, read_texts(rest)
        except OptionError as error:
            raise ProblemError(400, "invalid_query", str(error)) from error

    def _read_ask(self, said: Mapping[str, Any]) -> tuple[Kind, str | None]:
        if unknown := said.keys() - {"content_type", "sha256", "bytes"}:
            raise OptionError(f"unknown field {min(unknown)[:40]!a}")
        if None in said.values():
            raise OptionError("what is not known is left out: null is no value here")
        content_type, size = said.get("content_type"), said.get("bytes")
        if not isinstance(content_type, str) or content_type not in _KINDS:
            raise OptionError("content_type is image/jpeg, image/png or image/webp")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise OptionError("bytes is a whole number, at least 1")
        most = self._gateway.upload_policy.max_bytes
        if size is not None and size > most:
            raise ProblemError(413, "image_too_large", f"an image has at most {most} bytes")
        return _KINDS[content_type], check_sha256(said.get("sha256"))


async def _expect(spool: Spool, grant: Grant) -> Received:
    """The image in the spool, if it is the one that may be put. Raises ProblemError."""
    try:
        image = await spool.finish()
    except (RejectedError, OSError) as error:
        raise problem_of(error) from error
    if image.checked.kind != grant.kind:
        raise ProblemError(415, "image_type_unsupported", "another type of image than was announced")
    if grant.sha256 not in {None, image.sha256}:
        raise ProblemError(422, "image_hash_mismatch", "another image than was announced")
    return image


def _tenant(request: web.Request) -> str:
    """Whose images these are: what the credential says, and nothing else."""
    principal = request.get(REQUEST_KEY)
    if not isinstance(principal, Principal):
        raise ProblemError(401, "unauthorized", "this needs a valid credential")
    if not principal.may(Scope.SUBMIT):
        raise ProblemError(403, "forbidden", f"this credential lacks the scope {Scope.SUBMIT}")
    return principal.tenant


def _refuse_query(request: web.Request) -> None:
    if request.query_string:
        raise ProblemError(400, "invalid_query", "this path has no query parameters")


def _type_of(kind: Kind) -> str:
    return next(name for name, known in _KINDS.items() if known == kind)


def _answer_one(submission: Submission) -> web.Response:
    (entry,) = submission.entries
    if entry.problem is not None:
        raise entry.problem
    assert entry.ref is not None
    at = f"/v1/images/{entry.ref.id}"
    links = {"self": at, "annotated": f"{at}/annotated"}
    if submission.batch_id:
        links["batch"] = f"/v1/batches/{submission.batch_id}"
    return _json(202, {"id": entry.ref.id, "status": entry.status, "links": links}, _headers(submission, at))


def _answer_batch(submission: Submission) -> web.Response:
    problems = [entry.problem for entry in submission.entries if entry.problem]
    if problems and len(problems) == len(submission.entries) and all(problem.status >= 500 for problem in problems):
        raise problems[0]  # nothing was taken, and it is not the caller's fault
    members = _batch_members(submission)
    at = f"/v1/batches/{submission.batch_id}"
    return _json(202, members | {"links": {"self": at}}, _headers(submission, at))


def _batch_members(submission: Submission) -> dict[str, Any]:
    entries = submission.entries
    images: list[Mapping[str, Any]] = []
    for entry in entries:
        if entry.problem is not None:
            images.append({"problem": entry.problem.document()})
        elif entry.ref is not None:
            images.append({"id": entry.ref.id})
    accepted = submission.accepted
    return {
        "batch_id": submission.batch_id,
        "accepted": accepted,
        "rejected": len(entries) - accepted,
        "images": images,
    }


def _headers(submission: Submission, location: str) -> dict[str, str]:
    replayed = {"Idempotency-Replayed": "true"} if submission.replayed else {}
    return {"Location": location, **replayed}


def _count(submission: Submission) -> None:
    for entry in submission.entries:
        outcome = entry.problem.code if entry.problem else "known" if entry.known else "accepted"
        metrics.SUBMITTED.labels(outcome).inc()


def _json(status: int, members: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=json.dumps(members), headers=headers, content_type="application/json")
