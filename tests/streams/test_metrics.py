"""The histogram that takes batches says what prometheus_client's own says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest

from streams.metrics import RunHistogram

BOUNDS = (0.1, 1.0, 10.0)
NUMBERS = st.floats(0, 100) | st.sampled_from(BOUNDS)


@given(st.lists(st.lists(NUMBERS, max_size=20), max_size=5))
def test_it_says_what_the_one_by_one_histogram_says(batches: list[list[float]]) -> None:
    mine, theirs = CollectorRegistry(), CollectorRegistry()
    ours = RunHistogram("latency_seconds", "Latency.", BOUNDS)
    REGISTRY.unregister(ours)
    mine.register(ours)
    one_by_one = Histogram("latency_seconds", "Latency.", buckets=BOUNDS, registry=theirs)
    for batch in batches:
        ours.observe(np.array(batch, np.float64))
        for value in batch:
            one_by_one.observe(value)
    edges = [{"le": edge} for edge in ("0.1", "1.0", "10.0", "+Inf")]
    for name, labels in [("latency_seconds_count", {}), *(("latency_seconds_bucket", edge) for edge in edges)]:
        assert mine.get_sample_value(name, labels) == theirs.get_sample_value(name, labels)
    assert b"latency_seconds_sum" in generate_latest(mine)
