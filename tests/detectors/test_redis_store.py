"""The shared store, on a real Redis: entries outlive the process that wrote them, and a Redis in trouble costs little."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from detectors.cache_policy import CachePolicy
from detectors.metrics import CACHE_ERRORS
from detectors.redis_store import RedisStore
from infra.broker.processes import identify
from schemas.errors import ConfigurationError
from tests.support.deliveries import eventually
from tests.support.redis import answers, running_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    with running_redis(tmp_path) as started:
        yield started


def errors() -> float:
    """How often a store did not answer, so far."""
    (metric,) = CACHE_ERRORS.collect()
    return float(metric.samples[0].value)


def test_entries_are_shared_and_expire(server: tuple[str, Any]) -> None:
    url, _ = server
    writer = RedisStore(CachePolicy(redis_url=url, redis_ttl_s=60, redis_timeout_s=5))
    writer.put({b"a": b"1", b"empty": b""})
    writer.close()
    reader = RedisStore(CachePolicy(redis_url=url, redis_timeout_s=5))
    assert reader.get([b"a", b"b", b"empty"]) == [b"1", None, b""]
    with redis.Redis.from_url(url) as client:
        assert 0 < client.ttl(b"sightstream:result:a") <= 60
    reader.close()


def test_a_redis_that_hangs_is_asked_once_and_then_left_alone(server: tuple[str, Any]) -> None:
    url, process = server
    clock = [0.0]
    store = RedisStore(CachePolicy(redis_url=url, redis_timeout_s=0.2, redis_pause_s=5), lambda: clock[0])
    identify(process.pid).pause()  # a signal alone would leave it time for an answer
    before = errors()
    assert store.get([b"a", b"b"]) == [None, None]
    assert store.get([b"a"]) == [None]
    store.put({b"a": b"1"})
    assert errors() == before + 1
    process.send_signal(signal.SIGCONT)
    eventually(lambda: answers(url), "Redis goes on")
    store.put({b"a": b"1"})
    assert store.get([b"a"]) == [None], "not asked before the pause is over"
    clock[0] = 5.1
    store.put({b"a": b"2"})
    eventually(lambda: store.get([b"a"]) == [b"2"], "it works again after the pause")
    store.close()


def test_a_redis_that_is_gone_counts_as_empty(server: tuple[str, Any]) -> None:
    url, process = server
    store = RedisStore(CachePolicy(redis_url=url))
    process.kill()
    process.wait(10)
    store.put({b"a": b"1"})
    assert store.get([b"a"]) == [None]
    store.close()


def test_a_value_of_another_type_counts_as_none(server: tuple[str, Any]) -> None:
    url, _ = server
    with redis.Redis.from_url(url) as client:
        client.rpush("sightstream:result:a", "x")
    store = RedisStore(CachePolicy(redis_url=url, redis_timeout_s=5))
    assert store.get([b"a"]) == [None]
    store.close()


def test_a_url_that_is_none_of_a_redis_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigurationError, match=r"redis_url is none of") as raised:
        RedisStore(CachePolicy(redis_url="http://user:secret@host"))
    assert "secret" not in str(raised.value)
