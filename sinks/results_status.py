"""Figures of the whole service for `GET /v1/status`: no tenant's own, and asked of nobody more than once in a while."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from schemas.topics import Topics
from sinks.base import Partition
from sinks.results_view import time_text
from sinks.store_base import LogEnds, ModelSeen, Pace, ResultStore

_PACE_S = 60.0
_MODELS = 50


class ServiceStatus:
    """Answers from memory while its figures are younger than `fresh_s`; whoever comes while they are being read waits for the same ones."""

    def __init__(
        self,
        store: ResultStore,
        log: LogEnds,
        topics: Topics,
        fresh_s: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._log, self._topics = store, log, topics
        self._fresh_s, self._now = fresh_s, now
        self._lock = asyncio.Lock()
        self._figures: dict[str, Any] = {}
        self._until = float("-inf")

    async def figures(self) -> Mapping[str, Any]:
        """As JSON values. Raises BusyError while store or brokers do not answer."""
        async with self._lock:
            if self._now() >= self._until:
                self._figures = await self._read()
                self._until = self._now() + self._fresh_s
        return self._figures

    async def _read(self) -> dict[str, Any]:
        store = self._store
        ends, positions, taken, models, pace, behind_s = await asyncio.gather(
            self._log.ends(), store.positions(), store.taken(), store.models(), store.pace(_PACE_S), store.behind_s()
        )
        return {
            "models": [_model(model) for model in models[:_MODELS]],
            "lag": {
                "online": _lag(ends, taken, self._topics.online),
                "bulk": _lag(ends, taken, self._topics.bulk),
                "store": _lag(ends, positions),
            },
            "throughput_per_s": round(pace.throughput_per_s, 3),
            "latency_ms": _latency(pace),
            "store": {"backend": store.backend, "behind_s": behind_s},
        }


def _lag(ends: Mapping[Partition, int], reached: Mapping[Partition, int], topic: str | None = None) -> int:
    """Records between what was reached and the ends, of one topic or of all."""
    return sum(
        max(end - reached.get(partition, 0), 0) for partition, end in ends.items() if topic in {None, partition.topic}
    )


def _model(model: ModelSeen) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "last_seen_at": time_text(model.last_seen_at),
    }


def _latency(pace: Pace) -> dict[str, float | None]:
    given = {"p50": pace.p50_ms, "p95": pace.p95_ms, "p99": pace.p99_ms}
    return {name: None if value is None else round(max(value, 0.0), 3) for name, value in given.items()}
