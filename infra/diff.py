"""What `sightstream diff` does between its command line and its table: read both sides, compare, and show the worst."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from detectors.base import Image
from detectors.images import ImageLoader, ImageRequest
from infra.connections import check_connection
from infra.settings import Settings
from infra.uploads import readable_uploads
from infra.wiring import open_codec
from schemas.replays import ReplayManifest
from sinks.diff_html_images import Pictures, shrink
from sinks.diff_lake import read_lake
from sinks.diff_objects import ObjectsFile
from sinks.diff_pairs import ImagePair
from sinks.diff_report import DiffJob, DiffReport, make_report
from sinks.diff_select import Scope, Selector
from sinks.diff_side import Side, SideReader
from streams.fold import Follower, Latest, read_to_end
from streams.past_results import PastResults, Unread

_PICTURE_SIDE = 960


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where results are read: in a `lake`, else in `topics`, else in those that the sides call for."""

    lake: Path | None = None
    topics: tuple[str, ...] = ()
    scope: Scope = field(default_factory=Scope)


def read_sides(
    settings: Settings, selectors: tuple[Selector, Selector], places: Places, unread: Callable[[Unread], object]
) -> tuple[Side, Side]:
    """Both sides in one pass. Raises ConfigurationError where there is nothing to read."""
    readers = [SideReader(selector, places.scope) for selector in selectors]
    batches = read_lake(places.lake) if places.lake is not None else _from_topics(settings, selectors, places, unread)
    for batch in batches:
        for reader in readers:
            reader.add(batch)
    first, second = (reader.finish() for reader in readers)
    return first, second


def compare_sides(first: Side, second: Side, job: DiffJob, objects: Path | None) -> DiffReport:
    """The report; every object goes to the file `objects`, if there is to be one."""
    with ExitStack() as opened:
        if objects is not None:
            job = replace(job, watch=opened.enter_context(ObjectsFile(objects)).add)
        return make_report(first, second, job)


def load_pictures(settings: Settings, worst: Sequence[ImagePair]) -> Pictures:
    """The pictures of these images, small; or why there is none. Fetched by the rules that hold for workers (`images.*`)."""
    return asyncio.run(_load(settings, worst)) if worst else {}


async def _load(settings: Settings, worst: Sequence[ImagePair]) -> Pictures:
    async with ImageLoader(readable_uploads(settings), (_PICTURE_SIDE, _PICTURE_SIDE)) as loader:
        outcomes = await loader.load([ImageRequest(pair.uri) for pair in worst])
        return {
            (pair.tenant, pair.image_id): await _shown(pair, outcome)
            for pair, outcome in zip(worst, outcomes, strict=True)
        }


async def _shown(pair: ImagePair, outcome: Image | Exception) -> bytes | str:
    if not isinstance(outcome, Image):
        return str(getattr(outcome, "reason", outcome))
    if (outcome.width, outcome.height) != pair.size:
        return "it is not the one any more in which the boxes were found"
    return await asyncio.to_thread(shrink, outcome.pixels, _PICTURE_SIDE)


def _from_topics(
    settings: Settings, selectors: Iterable[Selector], places: Places, unread: Callable[[Unread], object]
) -> Iterator[pa.RecordBatch]:
    check_connection(settings.connection)
    past = PastResults(settings.connection, open_codec(settings), f"{settings.kafka.group}.diff")
    topics = places.topics or past.present(_usual(settings, past, selectors))
    yield from past.read(topics or [settings.topics.detections], places.scope.since, unread)


def _usual(settings: Settings, past: PastResults, selectors: Iterable[Selector]) -> list[str]:
    """The topics in which a side's results are: users', shadows', and where a replay's manifest says."""
    topics = settings.topics
    found = [topics.detections, topics.shadow]
    replays = {selector.replay_id for selector in selectors} - {None}
    if replays and past.present([topics.replays]):
        manifests = Latest(ReplayManifest)
        codec = open_codec(settings)
        read_to_end(Follower(settings.connection, codec, {topics.replays: manifests}, f"{settings.kafka.group}.diff"))
        found += [one.into for one in manifests.all().values() if one.id in replays and one.into]
    return list(dict.fromkeys(found))
