"""Replays from a command line: planned and begun, gone on with, waited for, stopped."""

import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from infra.progress import progress as bar
from infra.settings import Settings
from infra.topics import TopicAdmin
from infra.wiring import open_codec, open_publisher
from producers.publisher import Publisher
from producers.rate import TokenBucket
from schemas.codec import Codec
from schemas.errors import ConfigurationError, FatalError, RejectedError
from schemas.models import ModelVersion
from schemas.replays import ReplayManifest, ReplayProgress, ReplayState
from schemas.topics import Topic
from streams.fold import Follower, Latest, read_to_end
from streams.replay import Outcome, Pace, Replay, Timely, Turn
from streams.replay_book import Book, Watch
from streams.replay_lane import BulkLane, sent_behind
from streams.replay_ledger import Ledger
from streams.replay_online import Online
from streams.replay_outcomes import ReplayOutcomes, ReplayTally, images_of
from streams.replay_pace import Governor, Yielding
from streams.replay_plan import Plan, plan
from streams.replay_source import GROUP, Bound, Source
from streams.routes import STABLE_SUFFIX, RegistryRoutes

_KEPT = timedelta(days=30)  # results of `into`, as those of `detections`


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a turn goes about it. `rate`: references a second at most. `patience`: wait for outcomes until nothing came for so long."""

    rate: float | None = None
    yielding: bool = False
    patience: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a turn did. `tally` is None where nothing was waited for; `missing` are images without an outcome."""

    manifest: ReplayManifest
    outcome: Outcome
    tally: ReplayTally | None = None
    missing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was sent and, where outcomes were waited for, has a result; images that are gone do not count."""
        completed = self.outcome.progress.state is ReplayState.COMPLETED
        failures = self.tally.failures if self.tally else {}
        return completed and not (self.outcome.differences or self.missing or failures)


def open_book(settings: Settings) -> Book:
    """The replays that the log, or this machine, knows."""
    return Book(settings.connection, open_codec(settings), settings.topics, settings.state_dir / "replays")


def draw_up(settings: Settings, wanted: ReplayManifest, bounds: tuple[Bound, Bound], *, dry_run: bool = False) -> Plan:
    """The plan of a replay. Nothing is written but, unless `dry_run`, the topic `into` where that is new."""
    codec = open_codec(settings)
    with Source(settings.connection, codec, wanted.topic) as source:
        wanted = replace(wanted, model=_pinned(settings, source, codec, wanted.model))
        if wanted.into is not None:
            _check_into(settings, source, wanted.into, dry_run=dry_run)
        with bar("counted") as watch:
            drawn = plan(source, replace(wanted, into=None) if dry_run else wanted, bounds, settings.topics, watch)
    return replace(drawn, manifest=replace(drawn.manifest, into=wanted.into))


def begin(settings: Settings, manifest: ReplayManifest, course: Course) -> Report:
    """Write the manifest, and send all that it names. Raises ConfigurationError where there is such a replay."""
    book = open_book(settings)
    with book.held(manifest.id), open_publisher(settings) as publisher:
        if manifest.id in book.read():
            raise ConfigurationError(f"there is a replay {manifest.id!r}: resume it, or give another --id")
        book.enter(manifest, publisher)
        first = ReplayProgress(id=manifest.id, marks=manifest.marks, turn=1)
        outcome = _take_turn(settings, publisher, manifest, first, course)
    return _concluded(settings, manifest, outcome, course)


def go_on(settings: Settings, replay_id: str, course: Course) -> Report:
    """Send what is left of a replay, whoever was at it before."""
    book = open_book(settings)
    with book.held(replay_id), open_publisher(settings) as publisher:
        entry = book.get(replay_id)
        manifest, last = entry.manifest, entry.progress
        if last is not None and last.state is ReplayState.COMPLETED:
            outcome = Outcome(last, 0, 0, Ledger(manifest, last).differences())
        else:
            book.enter(manifest, publisher)  # its process may have died between the two
            last = last or ReplayProgress(id=replay_id, marks=manifest.marks)
            outcome = _take_turn(settings, publisher, manifest, replace(last, turn=last.turn + 1), course)
    return _concluded(settings, manifest, outcome, course)


def ask_to_stop(settings: Settings, replay_id: str) -> None:
    """Let whoever is at it leave off; it can be resumed. Raises ConfigurationError where nothing is left to stop."""
    entry = open_book(settings).get(replay_id)
    if entry.progress is None or entry.progress.state is not ReplayState.RUNNING:
        state = entry.progress.state if entry.progress else "not begun"
        raise ConfigurationError(f"replay {replay_id!r} does not run: it is {state}")
    asked = replace(entry.progress, state=ReplayState.STOPPED, runner=_me(), at=datetime.now(UTC))
    with open_publisher(settings) as publisher:
        publisher.put(settings.topics.replay_progress, replay_id, asked).result()


def _take_turn(
    settings: Settings, publisher: Publisher, manifest: ReplayManifest, last: ReplayProgress, course: Course
) -> Outcome:
    """Announce the turn, find out what was sent before it, and send the rest."""
    connection, topics, policy = settings.connection, settings.topics, settings.replay
    mine = replace(last, state=ReplayState.RUNNING, runner=_me(), at=datetime.now(UTC))
    publisher.put(topics.replay_progress, manifest.id, mine).result()
    with ExitStack() as stack:
        stop = stack.enter_context(_stopping())
        found: frozenset[tuple[int, int]] = frozenset()
        if mine.turn > 1:
            stop.wait(policy.settle_s)
            found = frozenset(sent_behind(connection, topics.bulk, manifest.id, mine.marks))
        source = stack.enter_context(Source(connection, publisher.codec, manifest.topic))
        watch = Watch(mine, stop)
        stack.enter_context(_following(settings, publisher.codec, watch))
        replay = Replay(
            manifest,
            Turn(mine, found),
            publisher.codec,
            BulkLane(publisher, topics.bulk, manifest.id, mine.marks),
            Timely(_saver(publisher, watch), policy.save_every_s),
        )
        pace = stack.enter_context(_pace(settings, publisher.codec, course, stop))
        with bar("replayed", manifest.references, mine.sent) as moved:
            return replay.run(source, pace, stop, moved)


def _concluded(settings: Settings, manifest: ReplayManifest, outcome: Outcome, course: Course) -> Report:
    """What a turn did and, where that is waited for, what became of the images."""
    if outcome.progress.state is not ReplayState.COMPLETED or course.patience is None:
        return Report(manifest=manifest, outcome=outcome)
    codec = open_codec(settings)
    with Source(settings.connection, codec, manifest.topic) as source:
        waiting = images_of(source, manifest)
    outcomes = ReplayOutcomes(settings.connection, codec, settings.topics, manifest)
    with bar("results", len(waiting)) as watch:
        tally = outcomes.wait(waiting, course.patience.total_seconds(), watch)
    missing = tuple(sorted(image_id for _, image_id in waiting))
    return Report(manifest=manifest, outcome=outcome, tally=tally, missing=missing)


def _saver(publisher: Publisher, watch: Watch) -> Callable[[ReplayProgress], None]:
    def save(progress: ReplayProgress) -> None:
        if watch.taken_over_by is not None:  # what this process says would stand in the other's way
            raise FatalError(f"{watch.taken_over_by} goes on with replay {progress.id!r}; this process leaves off")
        publisher.put(publisher.topics.replay_progress, progress.id, progress).result()

    return save


@contextmanager
def _pace(settings: Settings, codec: Codec, course: Course, stop: threading.Event) -> Iterator[Pace]:
    if course.yielding:
        policy, connection, topics = settings.replay, settings.connection, settings.topics
        with Online(connection, codec, topics, settings.kafka.group, policy) as online:
            yield Yielding(Governor(policy, course.rate), online.look, stop)
    elif course.rate is not None:
        yield TokenBucket(course.rate, sleep=stop.wait).take
    else:
        yield lambda: None


@contextmanager
def _following(settings: Settings, codec: Codec, watch: Watch) -> Iterator[None]:
    """Whoever wants this turn to end is heard within a second."""
    over = threading.Event()
    folds = {settings.topics.replay_progress: Latest(ReplayProgress, watch.changed)}
    follower = Follower(settings.connection, codec, folds, GROUP)
    thread = threading.Thread(target=follower.run, args=(over,), name="replay-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal ends the process as it would anyway."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def heard(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, heard)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pinned(settings: Settings, source: Source, codec: Codec, model: str) -> str:
    """The version that is meant, as `name@version`, by the registry where there is one. Raises ConfigurationError."""
    topic, versions = settings.topics.models, Latest(ModelVersion)
    with suppress(ConfigurationError):  # no such topic: an installation without a registry
        if any(source.ends(topic).values()):
            read_to_end(Follower(settings.connection, codec, {topic: versions}, GROUP))
    name, versioned, version = model.partition("@")
    if not versions.all() and versioned and version != "stable":
        return model
    try:
        return RegistryRoutes(versions).resolve(model if versioned else f"{name}{STABLE_SUFFIX}", "").model
    except RejectedError as error:
        raise ConfigurationError(f"{error}; a replay takes NAME@VERSION (`sightstream models list`)") from error


def _check_into(settings: Settings, source: Source, into: str, *, dry_run: bool) -> None:
    """Make sure that results can be written there. Raises ConfigurationError."""
    own = {topic.name for topic in settings.topics.catalogue()} - {settings.topics.detections}
    if into in own:
        raise ConfigurationError(f"{into} is not for results")
    if dry_run:
        return
    try:
        source.ends(into)
    except ConfigurationError:
        partitions = len(source.ends(settings.topics.detections))
        topic = Topic(into, "DetectionResult", "ImageRef.key, else ImageRef.id", partitions, _KEPT)
        TopicAdmin(settings.connection).create((topic,), settings.kafka.replication)


def _me() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
