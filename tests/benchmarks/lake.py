"""The Parquet sink's figures as a section of the report; `tests.benchmarks.parquet` measures them."""

import statistics

from schemas.topics import Topics
from tests.benchmarks.parquet import SIDES, fill, measure
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.kafka import create_topics

ROWS, ROUNDS = 400_000, 3
_NAMES = {"arrow": "this project's sink", "fastavro": "the same sink fed by fastavro"}


def run(stage: Stage) -> Section:
    """Both sides in turn over the same topic."""
    topics = Topics("bench-lake.")
    create_topics(stage.connection, topics)
    fill(stage.connection, topics, ROWS)
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(ROUNDS):
        for side in in_turn(SIDES, number):
            rates[side].append(measure(stage.connection, topics, side, ROWS, stage.scratch)[0])
        stage.say(f"round {number + 1}: " + ", ".join(f"{side} {rates[side][-1]:,.0f} rows/s" for side in SIDES))
    medians = {side: statistics.median(ones) for side, ones in rates.items()}
    return Section(
        name="parquet",
        title="Rows a second from the topic of results to claimed Parquet files",
        how=(
            f"{ROWS:,} results of one box each, 4 partitions. Each side runs the whole delivery: consumer group, decoding, claims, "
            f"zstd files with fsync, commit. The two sides differ in the decoder alone. {ROUNDS} rounds in turn, medians."
        ),
        columns=("side", "rows/s", "rounds"),
        rows=[
            (_NAMES[side], f"{medians[side]:,.0f}", " / ".join(f"{rate:,.0f}" for rate in rates[side]))
            for side in SIDES
        ],
        targets=(
            Target(what="over fastavro", measured=medians["arrow"] / medians["fastavro"], wanted=2.5),
            Target(what="rows/s", measured=medians["arrow"], wanted=100_000),
        ),
        figures=rates,
    )
