"""The retry budget as a state machine: what headers say, and where a record goes next."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Reason
from schemas.topics import Topics
from streams.retry_headers import Headers, Origin, RetryState, next_retry

HERE = Origin("images.online", 3, 42, 1_700_000_000_000)
ELSEWHERE = Origin("images.retry.10s", 0, 7, 1_700_000_099_000)
TOPICS = Topics("t.")


def test_a_record_never_retried_has_its_own_position_as_origin() -> None:
    state = RetryState.from_headers(None, HERE)
    assert state == RetryState(origin=HERE)


def test_a_failing_record_passes_through_each_retry_topic_once_and_then_has_none_left() -> None:
    headers: Headers = [("traceparent", b"00-ab")]
    visited = []
    here = HERE
    for now_ms in (1_000, 12_000, 80_000):
        step = RetryState.from_headers(headers, here).next(Reason.FETCH_TIMEOUT, now_ms, 0, TOPICS)
        assert step is not None
        topic, headers = step
        visited.append((topic, RetryState.from_headers(headers, ELSEWHERE).not_before_ms))
        here = ELSEWHERE
    assert visited == [
        ("t.images.retry.10s", 11_000),
        ("t.images.retry.1m", 72_000),
        ("t.images.retry.10m", 680_000),
    ]
    last = RetryState.from_headers(headers, ELSEWHERE)
    assert (last.attempt, last.first_failure_ms, last.reason, last.origin) == (3, 1_000, "fetch_timeout", HERE)
    assert last.others == (("traceparent", b"00-ab"),)
    assert last.next(Reason.FETCH_TIMEOUT, 700_000, 0, TOPICS) is None


def test_who_asks_for_longer_gets_a_later_topic_and_at_most_the_last() -> None:
    assert next_retry(0, 10, TOPICS) == ("t.images.retry.10s", 10_000)
    assert next_retry(0, 10.5, TOPICS) == ("t.images.retry.1m", 60_000)
    assert next_retry(1, 1, TOPICS) == ("t.images.retry.1m", 60_000)
    assert next_retry(0, 86_400, TOPICS) == ("t.images.retry.10m", 600_000)


junk = st.lists(
    st.tuples(
        st.sampled_from(
            ["retry.attempt", "retry.not.before", "retry.original.topic", "retry.original.offset", "retry.x", "x"]
        ),
        st.none() | st.binary(max_size=24) | st.integers(-5, 2**70).map(lambda n: str(n).encode()),
    )
)


@given(headers=junk, retry_after_s=st.floats(0, 1e9))
def test_any_headers_are_readable_and_the_budget_always_ends(headers: Headers, retry_after_s: float) -> None:
    foreign = [header for header in headers if not header[0].startswith("retry.")]
    for tries in range(10):
        state = RetryState.from_headers(headers, HERE)
        step = state.next(Reason.FETCH_FAILED, 5, retry_after_s, TOPICS)
        if step is None:
            return
        assert tries < len(TOPICS.retries)
        topic, headers = step
        after = RetryState.from_headers(headers, ELSEWHERE)
        assert (after.attempt, after.origin) == (state.attempt + 1, state.origin)
        assert after.not_before_ms == 5 + TOPICS.retries[topic].total_seconds() * 1000
        assert [header for header in headers if not header[0].startswith("retry.")] == foreign
    raise AssertionError("the budget never ended")
