"""The composition root: a detector with all that settings put around it."""

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from detectors.base import Image
from infra.settings import Settings
from infra.wiring import ENGINE, open_detector
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.redis import running_redis

IMAGE = Image(np.full((32, 48, 3), 7, np.uint8), sha256="a" * 64)


def lookups(store: str, outcome: str) -> float:
    return (
        REGISTRY.get_sample_value("sightstream_result_cache_lookups_total", {"store": store, "outcome": outcome}) or 0.0
    )


def settings(tmp_path: Path, **cache: object) -> Settings:
    given = {"model.path": "fake", "state_dir": tmp_path / "state"}
    return Settings().overriding(given | {f"cache.{name}": value for name, value in cache.items()})


def test_workers_share_what_they_found_through_redis(tmp_path: Path) -> None:
    with running_redis(tmp_path) as (url, _):
        hits = lookups("redis", "hit")
        for _ in range(2):  # two workers: each has a memory of its own
            detector = open_detector(settings(tmp_path, redis_url=url, redis_timeout_s=5))
            detector.detect([IMAGE], [DetectParameters()])
            detector.close()
        assert lookups("redis", "hit") == hits + 1


def test_a_worker_remembers_by_itself_and_not_at_all_without_memory(tmp_path: Path) -> None:
    for bound, found in ((64 * 1024, 1.0), (0, 0.0)):
        hits = lookups("memory", "hit")
        detector = open_detector(settings(tmp_path, max_bytes=bound))
        for _ in range(2):
            detector.detect([IMAGE], [DetectParameters()])
        detector.close()
        assert lookups("memory", "hit") == hits + found


def test_a_gpu_to_decode_on_that_is_not_there_is_known_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectors.choice.sees_cuda", lambda: False)
    wanted = settings(tmp_path).overriding({"images.decode_on": "cuda:0", "model.path": "nowhere.onnx"})
    with pytest.raises(ConfigurationError, match="no CUDA device"):
        open_detector(wanted)


def test_the_detector_is_timed_once_and_that_is_kept(tmp_path: Path) -> None:
    first = open_detector(settings(tmp_path)).curve.now
    assert open_detector(settings(tmp_path)).curve.now == first
    assert list((tmp_path / "state" / ENGINE).glob("curve-*.json"))
