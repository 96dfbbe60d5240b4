"""Puts results on their topics, in the order of their references."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from producers.publisher import OnDelivery, Publisher
from schemas.errors import Reason, RejectedError
from schemas.records import DetectionResult
from streams.work import Failure, Share


class ResultSender:
    """Encodes results as one run and sends them. What no topic takes becomes a failure of its image; the others go on."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        topics = publisher.topics
        self._not_for_results = {topic.name for topic in topics.catalogue()} - {topics.detections}
        self._there = {topics.detections}

    def send(
        self, batch: pa.RecordBatch, shares: Sequence[Share], records: Sequence[Any], report: OnDelivery
    ) -> list[Failure]:
        """Send results of users: row i of `batch` is the i-th of all records in `shares`. Each goes where its reference wants it."""
        at = (
            sorted(int(one) for share in shares for one in share.index) if len(shares) > 1 else shares[0].index.tolist()
        )
        usual = self._publisher.topics.detections
        if all(share.refs.column("into").null_count == len(share) for share in shares):
            return self._send(usual, batch, at, records, report)
        wanted = {
            int(one): into
            for share in shares
            for one, into in zip(share.index, share.refs.column("into").to_pylist(), strict=True)
        }
        failures: list[Failure] = []
        for topic in dict.fromkeys(wanted[one] for one in at):
            rows = [row for row, one in enumerate(at) if wanted[one] == topic]
            here = [at[row] for row in rows]
            if refusal := self._refusal(topic or usual):
                failures += [Failure(one, refusal, "publish") for one in here]
            else:
                part = batch.take(pa.array(rows, pa.int32()))
                failures += self._send(topic or usual, part, here, records, report)
        return failures

    def send_shadow(
        self, batch: pa.RecordBatch, share: Share, records: Sequence[Any], report: OnDelivery
    ) -> list[Failure]:
        """Send what no user sees."""
        return self._send(self._publisher.topics.shadow, batch, share.index.tolist(), records, report)

    def _send(
        self, topic: str, batch: pa.RecordBatch, at: Sequence[int], records: Sequence[Any], report: OnDelivery
    ) -> list[Failure]:
        values = self._publisher.codec.encode_run(batch, DetectionResult)
        keys = [records[one].key for one in at]
        if None in keys:  # a producer that wrote the reference without one
            keys = [_ordering_key(batch, row) if key is None else key for row, key in enumerate(keys)]
        sizes = [len(key) + len(value) for key, value in zip(keys, values, strict=True)]
        most = self._publisher.max_record_bytes
        if max(sizes) <= most:
            self._publisher.send_run(topic, keys, values, report)
            return []
        fits = [row for row, size in enumerate(sizes) if size <= most]
        self._publisher.send_run(topic, [keys[row] for row in fits], [values[row] for row in fits], report)
        return [
            Failure(at[row], RejectedError(Reason.RECORD_TOO_LARGE, f"a result of {len(values[row])} bytes"), "publish")
            for row, size in enumerate(sizes)
            if size > most
        ]

    def _refusal(self, topic: str) -> RejectedError | None:
        """Why a topic that a reference names takes no results: one that is not there would end the worker, again and again."""
        if topic in self._not_for_results:
            return RejectedError(Reason.RECORD_INVALID, f"{topic!r} is not for results that users ask for")
        if topic not in self._there:
            if not self._publisher.serves(topic):
                return RejectedError(Reason.RECORD_INVALID, f"there is no topic {topic!r} for the result")
            self._there.add(topic)
        return None


def _ordering_key(batch: pa.RecordBatch, row: int) -> bytes:
    key: str = batch.column("key")[row].as_py() or batch.column("image_id")[row].as_py()
    return key.encode()
