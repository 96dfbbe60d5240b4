"""Pictures through a gateway's client: what was found is said as it comes, and saved where that is wanted."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from infra.progress import progress
from infra.sections import ClientSettings
from producers import sources
from producers.client_async import AsyncClient
from producers.client_forms import Picture, SubmitOptions
from producers.client_http import ClientPolicy
from producers.client_images import Image, ImageStatus
from producers.client_queries import AnnotatedLook
from schemas.errors import ConfigurationError, RejectedError, SightstreamError
from schemas.problems import ProblemError

_SUFFIXES = {"jpeg": ".jpg", "webp": ".webp"}
_REFUSED = {401, 403}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the command line asked for. `folder`: where pictures with boxes and JSON go, None for nowhere."""

    sources: Sequence[str]
    options: SubmitOptions
    folder: Path | None = None
    picture_format: Literal["jpeg", "webp"] = "jpeg"
    as_json: bool = False
    timeout_s: float = 60.0
    concurrency: int = 16


async def detect(server: ClientSettings, job: Job) -> int:
    """Do it; returns how many pictures have no result. Raises UnreachableError, and ConfigurationError for what the user can mend."""
    pictures = [_picture(item.uri) for item in sources.items(job.sources)]
    names = _names(pictures)
    await _knock(server)
    policy = ClientPolicy(retry_for_s=job.timeout_s, concurrency=job.concurrency)
    failed = 0
    async with AsyncClient(server.server, server.token, policy) as client:
        tell = _Teller(client, job)
        with progress("detecting", len(pictures)) as moved_on:
            async with aclosing(client.detect_many(pictures, job.options, timeout_s=job.timeout_s)) as outcomes:
                async for picture, outcome in outcomes:
                    failed += not await tell.of(str(picture), names[str(picture)], outcome)
                    moved_on(1)
    return failed


async def _knock(server: ClientSettings) -> None:
    """Find out at once whether anybody is there and lets us in, rather than after patience has ended for every picture."""
    async with AsyncClient(server.server, server.token, ClientPolicy(retry_for_s=0.0)) as client:
        try:
            await client.status()
        except ProblemError as problem:
            _raise_if_shut_out(problem)


def _raise_if_shut_out(problem: ProblemError) -> None:
    if problem.status in _REFUSED:
        raise ConfigurationError(f"{problem.code}: {problem}; the credential is the setting client.token")


class _Teller:
    """Says and saves what became of pictures."""

    def __init__(self, client: AsyncClient, job: Job) -> None:
        self._client = client
        self._job = job

    async def of(self, source: str, name: str, outcome: Image | SightstreamError) -> bool:
        """Of one of them; whether it has a result, which is saved if that was wanted."""
        try:
            if isinstance(outcome, SightstreamError):
                raise outcome
            members = {"source": source, **outcome.members()}
            if self._job.folder is not None:
                await self._save(self._job.folder / name, members, outcome)
            if outcome.status is not ImageStatus.COMPLETED:
                failure = outcome.failure
                _complain(source, failure.code if failure else "failed", failure.message if failure else "")
                return False
        except SightstreamError as error:
            if isinstance(error, ProblemError):
                _raise_if_shut_out(error)
            if isinstance(error, ConfigurationError):
                raise
            _complain(source, _code(error), str(error))
            return False
        tqdm.write(json.dumps(members) if self._job.as_json else f"{source}: {_summary(outcome)}")
        return True

    async def _save(self, stem: Path, members: dict[str, object], image: Image) -> None:
        files = {".json": json.dumps(members, indent=1).encode() + b"\n"}
        if image.status is ImageStatus.COMPLETED:
            kind = self._job.picture_format
            files[_SUFFIXES[kind]] = await self._client.annotated(image.id, AnnotatedLook(format=kind))
        try:
            await asyncio.to_thread(_write, stem, files)
        except OSError as error:
            raise ConfigurationError(f"{stem.parent} cannot be written to: {error.strerror}") from error


def _write(stem: Path, files: dict[str, bytes]) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, content in files.items():
        stem.with_name(stem.name + suffix).write_bytes(content)


def _summary(image: Image) -> str:
    found = ", ".join(f"{often} {label}" for label, often in Counter(d.label for d in image.detections).most_common())
    took = f" ({image.timings['total_ms']:.0f} ms)" if image.timings else ""
    return (found or "nothing") + took


def _complain(source: str, code: str, message: str) -> None:
    tqdm.write(f"{source}: {code}: {message}", file=sys.stderr)


def _code(error: SightstreamError) -> str:
    if isinstance(error, ProblemError):
        return error.code
    if isinstance(error, RejectedError):
        return str(error.reason)
    return "unfinished" if isinstance(error, TimeoutError) else "unreachable"


def _picture(uri: str) -> Picture:
    """A file of this machine is uploaded, anything else is left to the workers."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else uri


def _names(pictures: Sequence[Picture]) -> dict[str, str]:
    """Picture -> what its saved files are called: as the picture, numbered where another has the name."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for picture in dict.fromkeys(map(str, pictures)):
        stem = Path(unquote(urlsplit(picture).path) if "://" in picture else picture).stem or "picture"
        free = chain([stem], (f"{stem}-{number}" for number in count(2)))
        names[picture] = next(name for name in free if name not in taken)
        taken.add(names[picture])
    return names
