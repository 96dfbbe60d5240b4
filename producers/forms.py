"""The bodies that bring images: a form with files, one raw image, JSON with references. Each becomes a finished `Submission`."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from producers.bodies import chunks, media_type, whole
from producers.desk import Desk, problem_of
from producers.multipart_form import Field, FileBegins, FileEnds, boundary_of, read_form
from producers.options import OptionError, Options, read_json, read_texts
from producers.spool import Spool
from producers.submission import Submission
from schemas.errors import Reason, RejectedError
from schemas.problems import ProblemError

RAW_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})


async def take_body(request: web.Request, desk: Desk, submission: Submission, query: Options) -> None:
    """Take all images of the body and wait until Kafka has them. `query`: options of a raw body.

    Raises ProblemError where the request as a whole is wrong, ConnectionError or CancelledError where the client goes. What was taken
    before that stays: see `Submission.abandon`.
    """
    kind = media_type(request)
    if kind == "multipart/form-data":
        await _take_form(request, desk, submission)
    elif kind in RAW_TYPES:
        await _take_raw(request, desk, submission, query)
    elif kind == "application/json":
        await _take_json(request, desk, submission)
    else:
        raise ProblemError(
            415, "unsupported_media_type", "send multipart/form-data, image/jpeg, image/png, image/webp or JSON"
        )
    await submission.finish()


async def receive(body: AsyncIterator[bytes], spool: Spool) -> None:
    """All of a body into a spool. Raises ProblemError, also for what is no image."""
    try:
        async for chunk in body:
            await spool.write(chunk)
    except (RejectedError, OSError) as error:
        raise problem_of(error) from error


async def _take_raw(request: web.Request, desk: Desk, submission: Submission, options: Options) -> None:
    most = desk.upload_policy.max_bytes
    if (request.content_length or 0) > most:
        raise problem_of(RejectedError(Reason.IMAGE_TOO_LARGE, f"more than {most} bytes"))
    with desk.open_spool() as spool:
        async with aclosing(chunks(request, most + 1)) as body:
            await receive(body, spool)
        if options.callback:
            submission.begin_batch(options.callback)
        await submission.add_file(spool, options)


async def _take_json(request: web.Request, desk: Desk, submission: Submission) -> None:
    wanted = read_json(await whole(request, desk.policy.max_json_bytes), desk.policy.max_images)
    if not wanted.batch:
        if wanted.callback:
            submission.begin_batch(wanted.callback)
        await submission.add_reference(wanted.images[0])
        return
    submission.begin_batch(wanted.callback)
    submission.several = True
    for reference in wanted.images:
        await submission.start_reference(reference)


async def _take_form(request: web.Request, desk: Desk, submission: Submission) -> None:
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    form = _Form(desk, submission)
    try:
        async with (
            aclosing(chunks(request)) as body,
            aclosing(read_form(body, boundary, desk.policy.max_images)) as events,
        ):
            async for event in events:
                if isinstance(event, bytes):
                    await form.write(event)
                elif isinstance(event, FileEnds):
                    await form.end_file()
                elif isinstance(event, FileBegins):
                    await form.begin_file()
                else:
                    form.add_field(event)
        await form.end()
    finally:
        form.close()


class _Form:
    """Files of a form, one at a time. The first is held back until there is a second: only then they are a batch."""

    def __init__(self, desk: Desk, submission: Submission) -> None:
        self._desk, self._submission = desk, submission
        self._fields: list[tuple[str, str]] = []
        self._options: Options | None = None
        self._spool: Spool | None = None  # of the file that is coming, or of the first while it is held back
        self._problem: ProblemError | None = None
        self._passed_over = 0

    def add_field(self, field: Field) -> None:
        self._fields.append((field.name, field.value))

    async def begin_file(self) -> None:
        if self._options is None:
            self._options = _read(self._fields)
            if self._options.callback:
                self._submission.begin_batch(self._options.callback)
            self._spool = self._desk.open_spool()
            return
        if not self._submission.several:
            if self._submission.batch_id is None:
                self._submission.begin_batch(None)
            self._submission.several = True
            await self._hand_on(self._options)
        try:
            self._spool = self._desk.open_spool()
        except ProblemError as overloaded:
            self._problem = overloaded

    async def write(self, chunk: bytes) -> None:
        if self._problem is not None or self._spool is None:
            self._pass_over(len(chunk))
            return
        try:
            await self._spool.write(chunk)
        except (RejectedError, OSError) as error:
            self._problem = problem_of(error)
            self._spool.close()

    async def end_file(self) -> None:
        if self._submission.several and self._options is not None:
            await self._hand_on(self._options)

    async def end(self) -> None:
        """The form is complete."""
        if self._options is None:
            _read(self._fields)
            raise ProblemError(422, "image_empty", "a form without a file")
        if self._submission.several:
            return
        if self._problem is not None:
            raise self._problem
        assert self._spool is not None
        await self._submission.add_file(self._spool, self._options)

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    async def _hand_on(self, options: Options) -> None:
        """The file that has come is the submission's from here on."""
        spool, problem = self._spool, self._problem
        self._spool = self._problem = None
        self._passed_over = 0
        if problem is not None:
            self._submission.add_problem(problem)
        elif spool is not None:
            await self._submission.start_file(spool, options)

    def _pass_over(self, size: int) -> None:
        """The rest of a bad file. Nobody sends us what nobody wants for ever."""
        self._passed_over += size
        if self._passed_over > self._desk.upload_policy.max_bytes:
            raise ProblemError(
                413, "image_too_large", f"an image is of more than {self._desk.upload_policy.max_bytes} bytes"
            )


def _read(fields: list[tuple[str, str]]) -> Options:
    try:
        return read_texts(fields)
    except OptionError as error:
        raise ProblemError(400, "invalid_request", str(error)) from error
