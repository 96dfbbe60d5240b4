"""A plain confluent-kafka loop with fastavro: consume many, produce each, and flush before every commit."""

import signal
import time

from confluent_kafka import Consumer, KafkaException, Producer

from tests.benchmarks.sides.handwork import Handwork
from tests.benchmarks.sides.task import Task, announce_first

_AT_ONCE = 1000


def main() -> None:
    task = Task.read()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    failures: list[object] = []
    producer = Producer(dict(task.producer), on_delivery=lambda error, _: failures.append(error) if error else None)
    consumer = Consumer(
        {
            "bootstrap.servers": task.bootstrap,
            "group.id": task.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([task.source])
    work, sink, produce = Handwork().result, task.sink, producer.produce
    first, uncommitted, commit_at = True, False, time.monotonic() + task.commit_interval_s
    while not stopping:
        messages = consumer.consume(_AT_ONCE, 0.1)
        if messages and first:
            announce_first()
            first = False
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            value = work(message.value(), message.topic(), message.partition(), message.offset())
            while True:
                try:
                    produce(sink, value, message.key())
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
        uncommitted = uncommitted or bool(messages)
        if uncommitted and time.monotonic() > commit_at:
            commit(consumer, producer, failures)
            uncommitted, commit_at = False, time.monotonic() + task.commit_interval_s
    if uncommitted:
        commit(consumer, producer, failures)
    consumer.close()


def commit(consumer: Consumer, producer: Producer, failures: list[object]) -> None:
    """Only what was delivered."""
    producer.flush()
    if failures:
        raise RuntimeError(failures[0])
    consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
