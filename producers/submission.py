"""One request's images: each with an outcome of its own, and all of them one batch if they are several."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any
from urllib.parse import urlsplit

from producers import metrics
from producers.confirming import Confirmation
from producers.desk import MISMATCH, Desk, Entry, Taker, problem_of
from producers.idempotency import KeyedIds
from producers.options import Options, Reference
from producers.spool import Spool
from schemas.control import Batch
from schemas.errors import RejectedError
from schemas.problems import ProblemError
from schemas.records import new_image_id

_RETRY_AFTER_S = 1.0
_UNFINISHED = Entry(problem=ProblemError(500, "internal_error", "this image was lost on the way"))


class Submission:
    """The images of one request, in order.

    Images are stored and sent while others still arrive; `finish` waits until Kafka confirmed what was sent. `several`, once that is
    known: its caller is told of a batch, which a lone image with a callback is on the log only.
    """

    def __init__(self, desk: Desk, tenant: str, keyed: KeyedIds | None) -> None:
        self.tenant = tenant
        self.entries: list[Entry] = []
        self.batch_id: str | None = None
        self.several = False
        self._desk, self._keyed = desk, keyed
        self._taker = Taker(desk, tenant, keyed)
        self._callback: str | None = None
        self._created_at = desk.now()
        self._told: Confirmation | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wrong: BaseException | None = None

    @property
    def accepted(self) -> int:
        """How many images have no problem."""
        return sum(entry.problem is None for entry in self.entries)

    @property
    def replayed(self) -> bool:
        """Whether some were known from before and none was sent."""
        return any(entry.known for entry in self.entries) and not any(entry.confirmation for entry in self.entries)

    def begin_batch(self, callback: str | None) -> None:
        """These images are a batch, if only so that its end can be told to `callback`. Before the first is taken.

        Raises ProblemError: 422 `callback_forbidden` where nobody would ever call it.
        """
        if callback and urlsplit(callback).scheme not in self._desk.callbacks:
            why = (
                "a callback is an https URL of a public host"
                if self._desk.callbacks
                else "this server calls nobody back"
            )
            raise ProblemError(422, "callback_forbidden", why)
        self.batch_id = self._keyed.batch_id() if self._keyed else new_image_id()
        self._callback = callback

    async def add_file(self, spool: Spool, options: Options) -> None:
        """Take a file that has come whole. A problem with it is its entry's."""
        at = self._reserve()
        await self._settle(at, self._taker.file(spool, options, at, self.batch_id))

    async def add_reference(self, reference: Reference) -> None:
        """Take an image that is only named. Like `add_file`."""
        at = self._reserve()
        await self._settle(at, self._taker.reference(reference, at, self.batch_id))

    async def start_file(self, spool: Spool, options: Options) -> None:
        """`add_file`, but returns as soon as fewer than `at_once` are under way. Raises ProblemError where going on makes no sense."""
        at = self._reserve()
        await self._start(at, self._taker.file(spool, options, at, self.batch_id))

    async def start_reference(self, reference: Reference) -> None:
        """`add_reference`, like `start_file`."""
        at = self._reserve()
        await self._start(at, self._taker.reference(reference, at, self.batch_id))

    def add_problem(self, problem: ProblemError) -> None:
        """The next image is none that can be taken."""
        self.entries.append(Entry(problem=problem))

    async def finish(self) -> None:
        """Return once each entry is confirmed, known, or has a problem.

        Raises ProblemError: 422 `idempotency_mismatch` where the request as a whole is another than before.
        """
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._raise()
        sent = [entry for entry in self.entries if entry.confirmation]
        await self._confirm([entry.confirmation for entry in sent if entry.confirmation])
        for entry in sent:
            if not _is_true(entry.confirmation):
                entry.problem = _not_confirmed()
            elif self._keyed and entry.ref:
                self._desk.memory.remember(entry.ref)

    async def close(self, interrupted: str | None = None, *, retried: bool = False) -> None:
        """Say on the log how many images the batch has; does nothing without a batch. After `finish`.

        `interrupted`: why fewer came than were meant to; stands in the batch's attributes. `retried`: the same request may well come again.
        If it then finds the same batch, by an Idempotency-Key, the batch stays `receiving` until that brings the rest. Raises ProblemError:
        503 `not_confirmed`.
        """
        if self.batch_id is None or (self._keyed and (retried or self._lacks())):
            return
        if not (self.several or self.accepted):
            return  # a lone image that was refused; its caller knows
        if self.replayed and await self._desk.memory.is_complete(self.tenant, self.batch_id):
            return
        told = self._tell(self.accepted, {"interrupted": interrupted} if interrupted else {})
        await self._confirm([told])
        if not _is_true(told):
            raise _not_confirmed()

    async def abandon(self, interrupted: str, *, retried: bool) -> None:
        """The rest will not come: what has come stays. See `close`; tells nobody of problems."""
        if self.batch_id is None:
            return
        try:
            await self.finish()
            await self.close(interrupted, retried=retried)
        except ProblemError as problem:
            metrics.ABANDONED.labels(problem.code).inc()
        else:
            metrics.ABANDONED.labels(interrupted).inc()

    def _lacks(self) -> bool:
        """Whether a retry might bring more: something was not ready."""
        return any(entry.problem is not None and entry.problem.status >= 500 for entry in self.entries)

    def _reserve(self) -> int:
        self.entries.append(_UNFINISHED)
        return len(self.entries) - 1

    async def _settle(self, at: int, work: Coroutine[Any, Any, Entry]) -> None:
        try:
            self.entries[at] = entry = await work
            if entry.confirmation and self.several and self._told is None:
                # Only now: a retry that brings nothing new must not open again what is closed.
                self._told = self._tell(None)
        except (RejectedError, ProblemError, OSError) as error:
            problem = problem_of(error)
            self.entries[at] = Entry(problem=problem)
            if problem.code == MISMATCH:
                self._wrong = problem

    async def _start(self, at: int, work: Coroutine[Any, Any, Entry]) -> None:
        if self._keyed and at == 0:  # whether this is another request than before shows before any more of it is taken
            await self._settle(at, work)
            self._raise()
            return
        task = self._desk.start(self._settle(at, work))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        while len(self._tasks) >= self._desk.policy.at_once:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._raise()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._wrong = error  # a bug; whoever asked hears of it

    def _raise(self) -> None:
        """What is wrong with the request as a whole."""
        if self._wrong is not None:
            raise self._wrong

    async def _confirm(self, confirmations: Sequence[Confirmation]) -> None:
        """Wait for these, for as long as Kafka may take."""
        if self._told is not None:
            confirmations = [*confirmations, self._told]
        if len(confirmations) == 1:  # the way of nearly all requests
            await _within(confirmations[0], self._desk.policy.confirm_s)
        elif confirmations:
            await asyncio.wait(confirmations, timeout=self._desk.policy.confirm_s)

    def _tell(self, images: int | None, attributes: dict[str, str] | None = None) -> Confirmation:
        assert self.batch_id is not None
        batch = Batch(
            id=self.batch_id,
            tenant=self.tenant,
            images=images,
            callback=self._callback,
            created_at=self._created_at,
            closed_at=None if images is None else self._desk.now(),
            attributes=attributes or {},
        )
        return self._desk.kafka.send(self._desk.kafka.topics.batches, f"{self.tenant}/{batch.id}", batch)


async def _within(confirmation: Confirmation, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(confirmation)
    except TimeoutError:
        return


def _is_true(confirmation: Confirmation | None) -> bool:
    return confirmation is not None and confirmation.done() and confirmation.result()


def _not_confirmed() -> ProblemError:
    return ProblemError(
        503, "not_confirmed", "Kafka did not confirm in time; try again, with the same key", _RETRY_AFTER_S
    )
