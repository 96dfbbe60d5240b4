"""How long people wait while history is replayed behind them, and while the model is switched under them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from confluent_kafka.admin import AdminClient, NewTopic

from producers.publisher import Publisher
from schemas.records import DetectionResult, ImageRef, new_image_id
from schemas.topics import Topics
from tests.benchmarks.engine_course import photographs
from tests.benchmarks.gateway_course import make_model
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.data import ROOT
from tests.support.kafka import create_topics, read_topic
from tests.support.pipeline import CODEC, await_more, worker_process

PER_S, HISTORY = 6.0, 4_000
WARM_S, QUIET_S, REPLAY_S, SETTLE_S, SWITCH_LIMIT_S = 20.0, 45.0, 120.0, 25.0, 180.0
BEFORE, REPLAY, BETWEEN, SWITCH, AFTER = "before", "during a replay", "between", "during a switch", "after"
QUIET = "quiet: before, between and after"
PICTURE = "live.svg"


@dataclass(frozen=True, slots=True)
class Seen:
    """A result of the online lane: when it was there, in seconds of the run, and how many milliseconds after its submission."""

    at_s: float
    ms: float


Phases = dict[str, tuple[float, float]]
"""Name -> from and until, in seconds of the run."""


def run(stage: Stage) -> Section:
    """Photographs come evenly on the online lane all the while."""
    topics = Topics(f"live-{uuid.uuid4().hex[:6]}.")
    create_topics(stage.connection, topics)
    images, model = photographs(stage), make_model(stage)
    system = _System(stage, topics)
    system.command("models", "add", str(model.ours), "--name", "yolo", "--stable")
    system.command("models", "add", str(model.ours), "--name", "yolo", "--confidence", "0.4")
    settings = {
        "IMAGES_ROOTS": str(images),
        "MODELS_DEFAULT": "yolo",
        "STATE_DIR": str(stage.scratch / "live-worker"),
        "CACHE_MAX_BYTES": "0",  # the photographs come again and again, and each is to be work
    }
    with (
        Publisher(stage.connection, CODEC, topics) as publisher,
        worker_process(stage.connection, topics, group_of(topics), stage.scratch / "live.log", settings) as worker,
    ):
        worker.start()
        photos = sorted(images.glob("*.jpg"))
        with _people(publisher, photos):
            await_more(stage.connection, topics, 100)
            time.sleep(WARM_S)  # what came while the model was loaded is worked off
            phases, began = _play(stage, system, publisher, photos)
    seen = _read(stage, topics, began)
    _draw(seen, phases, stage.pictures / PICTURE)
    return _section(model.name, seen, phases)


def group_of(topics: Topics) -> str:
    """The workers' consumer group."""
    return f"{topics.prefix}workers"


class _System:
    """The commands, as they are typed."""

    def __init__(self, stage: Stage, topics: Topics) -> None:
        self.stage, self.topics = stage, topics
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
        self._environment = inherited | {
            "SIGHTSTREAM_KAFKA_BOOTSTRAP": stage.connection.bootstrap,
            "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
            "SIGHTSTREAM_KAFKA_GROUP": group_of(topics),  # whose lag a replay that yields looks at
            "SIGHTSTREAM_STATE_DIR": str(stage.scratch / "live-operator"),
        }

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Begin a command."""
        line = [sys.executable, "-m", "infra.cli", *arguments]
        return subprocess.Popen(line, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True)

    def command(self, *arguments: str) -> None:
        """Run a command to its end."""
        process = self.start(*arguments)
        process.communicate()
        assert process.returncode == 0, arguments

    def versions(self) -> set[str]:
        """Of results so far."""
        found = read_topic(self.stage.connection, self.topics.detections)
        return {CODEC.decode(one.value(), DetectionResult).model_version for one in found[-50:]}


def _play(stage: Stage, system: _System, publisher: Publisher, photos: Sequence[Path]) -> tuple[Phases, float]:
    began, phases = time.time(), Phases()

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.time() - began
        yield
        phases[name] = (start, time.time() - began)
        stage.say(f"{name}: {phases[name][1] - start:.0f} s")

    history = _write_history(stage, system.topics, publisher, photos)
    with phase(BEFORE):
        time.sleep(QUIET_S)
    with phase(REPLAY):
        replay = system.start("replay", "--topic", history, "--model", "yolo@1", "--yield-to-online", "--json")
        time.sleep(REPLAY_S)
        replay.send_signal(signal.SIGTERM)
        said = json.loads(replay.communicate()[0] or "{}")
    stage.say(f"replayed {said.get('sent')} references meanwhile")
    if not said.get("sent"):
        raise RuntimeError("nothing was replayed, so that nothing is known of what it costs")
    with phase(BETWEEN):
        time.sleep(SETTLE_S)
    with phase(SWITCH):
        system.command("models", "promote", "yolo@2")
        deadline = time.time() + SWITCH_LIMIT_S
        while "2" not in system.versions() and time.time() < deadline:
            time.sleep(2)
        time.sleep(5)
    with phase(AFTER):
        time.sleep(SETTLE_S)
    return phases, began


def _write_history(stage: Stage, topics: Topics, publisher: Publisher, photos: Sequence[Path]) -> str:
    name = f"{topics.prefix}history"
    admin = AdminClient(stage.connection.librdkafka())
    admin.create_topics([NewTopic(name, num_partitions=4)], operation_timeout=30)[name].result(30)
    for number in range(HISTORY):
        ref = ImageRef(id=new_image_id(), uri=photos[number % len(photos)].as_uri(), key=f"past-{number % 16}")
        publisher.send(name, ref.ordering_key.encode(), CODEC.encode(ref), lambda *_: None)
    publisher.flush(60)
    return name


@contextmanager
def _people(publisher: Publisher, photos: Sequence[Path]) -> Iterator[None]:
    """Submit photographs evenly until the block ends."""
    over = threading.Event()

    def submit() -> None:
        began, number = time.monotonic(), 0
        while not over.wait(max(0.0, began + number / PER_S - time.monotonic())):
            uri = photos[number % len(photos)].as_uri()
            publisher.publish(ImageRef(id=new_image_id(), uri=uri, key=f"camera-{number % 16}"))
            number += 1

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _read(stage: Stage, topics: Topics, began: float) -> list[Seen]:
    results = [CODEC.decode(one.value(), DetectionResult) for one in read_topic(stage.connection, topics.detections)]
    return [
        Seen(one.completed_at.timestamp() - began, (one.completed_at - one.submitted_at).total_seconds() * 1000)
        for one in sorted(results, key=lambda one: one.completed_at)
        if one.replay_id is None
    ]


def _section(model: str, seen: Sequence[Seen], phases: Mapping[str, tuple[float, float]]) -> Section:
    ms = {name: [one.ms for one in seen if start <= one.at_s < end] for name, (start, end) in phases.items()}
    ms[QUIET] = ms[BEFORE] + ms[BETWEEN] + ms[AFTER]
    quantiles = {name: np.percentile(values, (50, 95, 99)) for name, values in ms.items()}
    quiet = quantiles[QUIET]
    return Section(
        name="live",
        title="Online latency while history is replayed and the model is switched",
        how=(
            f"{model}, one worker, {PER_S:g} photographs a second on the online lane, without a cache of results; milliseconds "
            "from submission to result. The replay yields to the online lane; the switch is `models promote`, with a rehearsal "
            "of the new version beside the work, until results are of it. Broker, worker and commands share the machine."
        ),
        columns=("", "images", "p50 ms", "p95 ms", "p99 ms", "p95 over quiet", "p99 over quiet"),
        rows=[
            (
                name,
                f"{len(ms[name])}",
                *(f"{value:.0f}" for value in found),
                *(f"{found[at] / quiet[at]:.2f}" for at in (1, 2)),
            )
            for name, found in quantiles.items()
        ],
        targets=(
            Target(
                what="p95 during a replay over quiet",
                measured=quantiles[REPLAY][1] / quiet[1],
                wanted=1.1,
                at_least=False,
            ),
            Target(
                what="p99 during a switch over quiet",
                measured=quantiles[SWITCH][2] / quiet[2],
                wanted=1.5,
                at_least=False,
            ),
        ),
        picture=PICTURE,
        figures={"seen": [[one.at_s, one.ms] for one in seen], "phases": dict(phases)},
    )


def _draw(seen: Sequence[Seen], phases: Mapping[str, tuple[float, float]], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sightstream"
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    for name, colour in ((REPLAY, "tab:orange"), (SWITCH, "tab:green")):
        axes.axvspan(*phases[name], color=colour, alpha=0.15, label=name)
    axes.plot([one.at_s for one in seen], [one.ms for one in seen], ".", markersize=2, color="tab:grey")
    seconds = np.arange(0.0, max(end for _, end in phases.values()), 1.0)
    windows = [[one.ms for one in seen if at - 5 <= one.at_s < at + 5] for at in seconds]
    axes.plot(
        [at for at, window in zip(seconds, windows, strict=True) if window],
        [float(np.percentile(window, 95)) for window in windows if window],
        color="tab:blue",
        label="p95 of ten seconds",
    )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("submission to result, ms")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
