"""One batch from its sources onto Kafka and, if wanted, until its last outcome: what `sightstream publish` does."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Never

from tqdm import tqdm

from infra.settings import Settings
from infra.wiring import open_codec, open_publisher
from producers.feed import Feed, FeedPolicy, Outcome
from producers.journal import Journal, Progress
from producers.publisher import Publisher
from producers.references import Batch, references
from producers.sources import items
from schemas.records import ImageRef
from streams.awaiting import Outcomes, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for. `patience`: wait for outcomes, until nothing came for so long; None does not wait."""

    sources: Sequence[str]
    batch: Batch
    rate: float | None = None
    patience: timedelta | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a batch. `tally` is None if nothing was waited for; `missing` are ids without an outcome."""

    batch_id: str
    outcome: Outcome
    tally: Tally | None = None
    missing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every image was confirmed and, where outcomes were waited for, has a result."""
        outcome, tally = self.outcome, self.tally
        return not (outcome.failed or outcome.rejected or self.missing or (tally and tally.failures))


def publish(settings: Settings, request: Request) -> Report:
    """Publish the batch, keep its journal in the state folder, and wait for outcomes unless a delivery failed."""
    journal = Journal(settings.state_dir / "publish")
    progress = (journal.load(request.batch.id) if request.resume else None) or Progress(batch_id=request.batch.id)
    refs = references(items(request.sources), request.batch)
    with ExitStack() as stack:
        publisher = stack.enter_context(open_publisher(settings))
        if request.patience is None:
            return Report(batch_id=request.batch.id, outcome=_feed(publisher, refs, progress, journal, request.rate))
        outcomes = stack.enter_context(Outcomes(settings.connection, open_codec(settings), settings.topics))
        marks = progress.marks or outcomes.marks(from_start=progress.confirmed > 0)
        progress = replace(progress, marks=marks)
        waiting: set[str] = set()
        outcome = _feed(publisher, _noted(refs, waiting), progress, journal, request.rate)
        if outcome.failed:
            return Report(batch_id=request.batch.id, outcome=outcome)
        waiting -= {*progress.rejected, *outcome.rejected}
        tally = _wait(outcomes, waiting, progress, request.patience)
        return Report(batch_id=request.batch.id, outcome=outcome, tally=tally, missing=tuple(sorted(waiting)))


def _noted(refs: Iterator[ImageRef], waiting: set[str]) -> Iterator[ImageRef]:
    for ref in refs:
        waiting.add(ref.id)
        yield ref


def _feed(
    publisher: Publisher, refs: Iterator[ImageRef], progress: Progress, journal: Journal, rate: float | None
) -> Outcome:
    with _bar("published", None, progress.confirmed) as bar:
        feed = Feed(
            publisher, progress, FeedPolicy(rate=rate), journal.save, watch=lambda done: bar.update(done - bar.n)
        )
        return feed.run(refs)


def _wait(outcomes: Outcomes, waiting: set[str], progress: Progress, patience: timedelta) -> Tally:
    with _bar("results", len(waiting), 0) as bar:
        return outcomes.wait(waiting, progress.marks, patience.total_seconds(), watch=bar.update)


def _bar(what: str, total: int | None, done: int) -> "tqdm[Never]":
    """A progress bar on stderr, quiet where that is no terminal."""
    return tqdm(desc=what, total=total, initial=done, unit="img", dynamic_ncols=True, file=sys.stderr, disable=None)
