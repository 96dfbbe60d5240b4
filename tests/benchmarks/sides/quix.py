"""Quix Streams: `dataframe.apply().to_topic()`, at least once, with the same work. Runs in an environment of its own."""

from typing import Any

from quixstreams import Application, message_context

from tests.benchmarks.sides.handwork import Handwork
from tests.benchmarks.sides.task import Task, announce_first


def main() -> None:
    task = Task.read()
    work = Handwork().result
    app = Application(
        broker_address=task.bootstrap,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_interval=task.commit_interval_s,
        producer_extra_config=dict(task.producer),
        auto_create_topics=False,
        use_changelog_topics=False,
        loglevel="ERROR",
    )
    source = app.topic(task.source, value_deserializer="bytes", key_deserializer="bytes")
    sink = app.topic(task.sink, value_serializer="bytes", key_serializer="bytes")
    first = True

    def detect(value: Any) -> bytes:
        nonlocal first
        if first:
            announce_first()
            first = False
        context = message_context()
        return work(value, context.topic, context.partition, context.offset)

    app.dataframe(source).apply(detect).to_topic(sink)
    app.run()


if __name__ == "__main__":
    main()
