"""Kafka to Kafka with a detector that finds nothing: records a second of one worker process, next to what a user could write instead."""

import statistics

from schemas.records import Lane
from tests.benchmarks.races import Course, Outcome, in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage

RECORDS, ROUNDS = 200_000, 3
SIDES = {
    "worker": "this project's worker",
    "plain": "plain confluent-kafka loop, fastavro",
    "quix": "Quix Streams 3.28.1",
}
_HOW = (
    "{records:,} Avro references (250-byte results, 400 keys, 4 partitions) on one topic of a one-node Apache Kafka, which shares the "
    "machine. Each side is a process of its own and does the same for each record: decode, result id, encode, produce with an idempotent "
    "producer and the same compression, all delivery reports awaited before a commit every 0.25 s. Time runs from the first record in "
    "hand to the last result on the broker's log, by the broker's clock. The sides take turns, {rounds} rounds; medians."
)


def run(stage: Stage) -> Section:
    """Let the sides race."""
    course = Course(stage.connection)
    course.fill(Lane.ONLINE, [f"file:/photos/shelf/{number:08d}.jpg" for number in range(RECORDS)])
    outcomes: dict[str, list[Outcome]] = {side: [] for side in SIDES}
    for number in range(ROUNDS):
        for side in in_turn(SIDES, number):
            outcomes[side].append(course.race(side, course.task(side, model="noop"), RECORDS))
            stage.say(f"round {number + 1}, {SIDES[side]}: {outcomes[side][-1].per_s:,.0f} records/s")
    per_s = {side: statistics.median(one.per_s for one in runs) for side, runs in outcomes.items()}
    rows = [
        (
            name,
            f"{per_s[side]:,.0f}",
            " / ".join(f"{one.per_s:,.0f}" for one in outcomes[side]),
            f"{statistics.median(one.cpu_us for one in outcomes[side]):.1f}",
            f"{per_s['worker'] / per_s[side]:.2f}",
        )
        for side, name in SIDES.items()
    ]
    return Section(
        name="pipeline",
        title="Kafka to Kafka, records a second of one worker process",
        how=_HOW.format(records=RECORDS, rounds=ROUNDS),
        columns=("side", "records/s", "rounds", "CPU µs a record", "worker is … times as fast"),
        rows=rows,
        targets=(
            Target(what="worker over plain loop", measured=per_s["worker"] / per_s["plain"], wanted=1.0),
            Target(what="worker over Quix Streams", measured=per_s["worker"] / per_s["quix"], wanted=2.0),
            Target(what="worker, records/s", measured=per_s["worker"], wanted=40_000),
        ),
        figures={side: [one.per_s for one in runs] for side, runs in outcomes.items()},
    )
