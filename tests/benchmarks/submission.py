"""How many pictures a second the gateway takes, with keys and all its checks, beside a handler that does only what must be."""

import json
import shutil
import statistics
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from schemas.topics import Topics
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.data import ROOT
from tests.support.kafka import create_topics, delete_topics

ROUNDS, SECONDS, CONNECTIONS, BYTES = 3, 12, 64, 30_000
BARE, GATEWAY = "bare", "gateway"
SIDES = (BARE, GATEWAY)
_NAMES = {BARE: "bare aiohttp handler", GATEWAY: "the gateway: keys, limits, checks"}


def run(stage: Stage) -> Section:
    """Sides in turn, each a process of its own; the clients are another."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(ROUNDS):
        for side in SIDES[:: -1 if number % 2 else 1]:
            found[side].append(_measure(stage, side))
            stage.say(f"{side}: {found[side][-1]}")
    middle = {
        side: {name: statistics.median(one[name] for one in runs) for name in runs[0]} for side, runs in found.items()
    }
    bare, ours = middle[BARE], middle[GATEWAY]
    return Section(
        name="submission",
        title="Pictures a second into Kafka over HTTP",
        how=(
            f"Multipart, {bare['bytes'] / 1000:.0f} kB a picture and each another one, {CONNECTIONS} connections; an answer comes after "
            "Kafka confirmed. The bare handler reads the form, hashes, writes the file and awaits the confirmation. The gateway also asks "
            "for an API key, counts limits, checks the picture and keeps it by its content through obstore. Client, server and broker "
            f"share the machine. {ROUNDS} rounds of {SECONDS} s, sides in turn; medians."
        ),
        columns=("side", "pictures/s", "rounds", "p50 ms", "p99 ms", "CPU µs a picture", "RSS grew by MiB"),
        rows=[
            (
                _NAMES[side],
                f"{middle[side]['per_s']:,.0f}",
                " / ".join(f"{one['per_s']:,.0f}" for one in found[side]),
                f"{middle[side]['p50_ms']:.0f}",
                f"{middle[side]['p99_ms']:.0f}",
                f"{middle[side]['cpu_us']:.0f}",
                f"{middle[side]['grew_mib']:.1f}",
            )
            for side in SIDES
        ],
        targets=(
            Target(what="gateway over bare handler", measured=ours["per_s"] / bare["per_s"], wanted=0.7),
            Target(
                what="p99 over the bare handler's", measured=ours["p99_ms"] / bare["p99_ms"], wanted=1.5, at_least=False
            ),
        ),
        figures=found,
    )


def _measure(stage: Stage, side: str) -> dict[str, float]:
    topics = Topics(f"submission-{uuid.uuid4().hex[:6]}.")
    create_topics(stage.connection, topics)
    folder = stage.scratch / topics.prefix
    try:
        with _served(stage, side, topics, str(folder)) as (process, where):
            _submit(where, 2)  # warm, so that what is measured of memory is growth
            before, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
            figures = _submit(where, SECONDS)
            figures["grew_mib"] = (process.memory_info().rss - before) / 2**20
            figures["cpu_us"] = (sum(process.cpu_times()[:2]) - cpu) / (figures["per_s"] * SECONDS) * 1e6
            return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        delete_topics(stage.connection, [topic.name for topic in topics.catalogue()])


@contextmanager
def _served(stage: Stage, side: str, topics: Topics, folder: str) -> Iterator[tuple[psutil.Process, dict[str, Any]]]:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.sides.intake",
        side,
        stage.connection.bootstrap,
        topics.prefix,
        folder,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            yield psutil.Process(server.pid), json.loads(server.stdout.readline())
        finally:
            server.kill()


def _submit(where: dict[str, Any], seconds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.sides.submitters", str(where["port"]), where["key"]]
    done = subprocess.run(
        [*command, str(seconds), str(CONNECTIONS), str(BYTES)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
