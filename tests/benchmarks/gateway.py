"""Pictures in, boxes out over HTTP: this system beside a plain gateway with a queue in memory, by how many clients there are."""

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.engine_course import photographs
from tests.benchmarks.gateway_course import Served, make_model, percentile, plain_gateway, this_system, upload
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage

CLIENTS = (1, 16, 64)
ROUNDS = 3
FROM_S, UNTIL_S = 3.0, 15.0
PLAIN = "plain gateway"
WAYS = {PLAIN: "plain", "?wait": "wait", "202 and websocket": "push"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One side in one round: images a second, and milliseconds from upload to boxes."""

    per_s: float
    p50_ms: float
    p95_ms: float


def run(stage: Stage) -> Section:
    """Every side in turn, each with the same clients and the same photographs."""
    model, images = make_model(stage), photographs(stage)
    found: dict[tuple[str, int], list[Seen]] = {(name, count): [] for count in CLIENTS for name in WAYS}
    with ExitStack() as stack:
        plain = stack.enter_context(plain_gateway(stage, model))
        ours = stack.enter_context(this_system(stage, model))
        served = {name: plain if name == PLAIN else ours for name in WAYS}
        for name in WAYS:
            _measure(served[name], name, 16, images, stage)  # everything has been touched once before it is timed
        for number in range(ROUNDS):
            for count in CLIENTS:
                for name in in_turn(WAYS, number):
                    seen = _measure(served[name], name, count, images, stage)
                    found[name, count].append(seen)
                    stage.say(
                        f"round {number + 1}, {count} clients: {name} {seen.per_s:.1f}/s, p50 {seen.p50_ms:.0f} ms"
                    )
    medians = {key: _median(ones) for key, ones in found.items()}
    return Section(
        name="gateway",
        title="Images a second and latency over HTTP",
        how=(
            f"{model.name}, photographs uploaded as multipart, each made another one by a comment in its file, so that nothing is "
            "known already. A client uploads again as soon as it has its boxes. The plain gateway is FastAPI with a queue and a "
            "dictionary in memory and one thread that calls Ultralytics' predict on the checkpoint; it answers whoever waits at once, "
            "without polling. This system is gateway, store and worker as processes with their defaults, and Apache Kafka, all on "
            "this machine; in one way the upload is answered with the boxes, in the other a websocket of the client's own tells of "
            "them. All of them run all the time, and one is loaded at a time, from a process of clients. "
            f"{UNTIL_S:.0f} s each, of which the first {FROM_S:.0f} do not count; {ROUNDS} rounds in turn, medians."
        ),
        columns=("clients", "side", "images/s", "over plain", "p50 ms", "p95 ms", "rounds"),
        rows=[
            (
                f"{count}",
                name,
                f"{medians[name, count].per_s:.1f}",
                f"{medians[name, count].per_s / medians[PLAIN, count].per_s:.2f}",
                f"{medians[name, count].p50_ms:.0f}",
                f"{medians[name, count].p95_ms:.0f}",
                " / ".join(f"{one.per_s:.1f}" for one in found[name, count]),
            )
            for name, count in found
        ],
        targets=_targets(medians),
        figures={
            f"{name}, {count}": [[s.per_s, s.p50_ms, s.p95_ms] for s in ones] for (name, count), ones in found.items()
        },
    )


def _measure(served: Served, name: str, clients: int, images: Path, stage: Stage) -> Seen:
    said = upload(served, WAYS[name], images, stage, clients=clients, seconds=UNTIL_S)
    if said["refused"]:
        stage.say(f"{name}, {clients} clients: NOT answered with success: {said['refused']}")
    counted = [took_ms for end_s, took_ms in said["done"] if FROM_S <= end_s < UNTIL_S]
    return Seen(len(counted) / (UNTIL_S - FROM_S), percentile(counted, 0.5), percentile(counted, 0.95))


def _median(ones: list[Seen]) -> Seen:
    return Seen(
        statistics.median(one.per_s for one in ones),
        statistics.median(one.p50_ms for one in ones),
        statistics.median(one.p95_ms for one in ones),
    )


def _targets(medians: dict[tuple[str, int], Seen]) -> list[Target]:
    """For the lesser of this system's two ways."""
    ours = [name for name in WAYS if name != PLAIN]
    wanted = 4.5 if "amx" in Path("/proc/cpuinfo").read_text("utf-8") else 3.5
    targets = []
    for count in CLIENTS[1:]:
        plain = medians[PLAIN, count]
        rate = min(medians[name, count].per_s for name in ours) / plain.per_s
        tail = max(medians[name, count].p95_ms for name in ours) / plain.p95_ms
        targets += [
            Target(what=f"images/s over the plain gateway's, {count} clients", measured=rate, wanted=wanted),
            Target(what=f"p95 over the plain gateway's, {count} clients", measured=tail, wanted=1.0, at_least=False),
        ]
    alone = max(medians[name, 1].p50_ms for name in ours) / medians[PLAIN, 1].p50_ms
    return [*targets, Target(what="p50 over the plain gateway's, 1 client", measured=alone, wanted=0.6, at_least=False)]
