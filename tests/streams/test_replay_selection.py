"""What a replay takes of a topic, and what its references become."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Codec, PackagedSchemas
from schemas.records import DetectParameters, ImageRef, Lane
from schemas.replays import ReplayManifest, ReplayRange
from streams.replay_selection import Selection, again, digest_of, fits, link
from tests.support.records import IMAGE_REFS

CODEC = Codec(PackagedSchemas())
NOW = datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC)
REF = ImageRef(id="a", uri="file:///a.jpg", tenant="acme", batch_id="b1", attributes={"site": "north", "line": "7"})


@pytest.mark.parametrize(
    ("selection", "ref", "taken"),
    [
        (Selection(), REF, True),
        (Selection(tenant="acme", batch_id="b1", attributes={"site": "north", "line": "7"}), REF, True),
        (Selection(tenant="other"), REF, False),
        (Selection(batch_id="b2"), REF, False),
        (Selection(batch_id="b1"), replace(REF, batch_id=None), False),
        (Selection(attributes={"site": "north", "line": "8"}), REF, False),
        (Selection(attributes={"shift": "2"}), REF, False),
        (Selection(attributes={"shift": ""}), REF, False),
        (Selection(), replace(REF, replay_id="r1"), False),
        (Selection(), replace(REF, id=""), False),
        (Selection(), replace(REF, uri=""), False),
    ],
)
def test_what_is_taken(selection: Selection, ref: ImageRef, taken: bool) -> None:
    batch = CODEC.decode_run([CODEC.encode(ref)] * 2, ImageRef).batch
    assert selection.mask(batch).tolist() == [taken, taken]
    assert selection.mask(batch.slice(0, 0)).tolist() == []


@settings(deadline=None, max_examples=50)
@given(refs=st.lists(IMAGE_REFS, min_size=1, max_size=5))
def test_a_reference_is_sent_again_as_it_was_but_for_what_makes_it_a_replay(refs: list[ImageRef]) -> None:
    manifest = ReplayManifest(id="r1", model="yolo@3", into="elsewhere")
    batch = again(CODEC.decode_run([CODEC.encode(ref) for ref in refs], ImageRef).batch, manifest, NOW)
    sent = [CODEC.decode(value, ImageRef) for value in CODEC.encode_run(batch, ImageRef)]
    for ref, once_more in zip(refs, sent, strict=True):
        assert once_more == replace(
            ref,
            lane=Lane.BULK,
            model="yolo@3",
            submitted_at=NOW,
            deadline=None,
            replay_id="r1",
            into="elsewhere",
            silent=True,
        )


def test_whoever_asks_for_it_is_told_of_the_results() -> None:
    ref = replace(REF, parameters=DetectParameters(confidence=0.5), deadline=NOW)
    batch = again(CODEC.decode_run([CODEC.encode(ref)], ImageRef).batch, ReplayManifest(id="r", notify=True), NOW)
    (sent,) = [CODEC.decode(value, ImageRef) for value in CODEC.encode_run(batch, ImageRef)]
    assert (sent.silent, sent.into, sent.parameters, sent.deadline) == (False, None, ref.parameters, None)


REFERENCE = st.tuples(st.integers(0, 9), st.none() | st.binary(max_size=3), st.binary(max_size=3))


@given(st.lists(REFERENCE, max_size=4), st.lists(REFERENCE, max_size=4))
def test_the_chain_tells_every_difference(
    one: list[tuple[int, bytes | None, bytes]], other: list[tuple[int, bytes | None, bytes]]
) -> None:
    chains = []
    for refs in (one, other):
        chain = ""
        for offset, key, value in refs:
            chain = link(chain, offset, key, value)
        chains.append(chain)
    assert (chains[0] == chains[1]) == (one == other)


def test_the_digest_is_of_what_is_replayed_and_not_of_where_it_was_looked_for() -> None:
    one = (
        ReplayRange(partition=0, first=0, end=9, references=2, digest="ab"),
        ReplayRange(partition=1, first=3, end=4),
    )
    same = (ReplayRange(partition=0, first=1, end=7, references=2, digest="ab"),)
    assert digest_of(one) == digest_of(same)
    assert digest_of(one) != digest_of((replace(same[0], digest="ac"),))
    assert digest_of(()).startswith("sha256:")


def test_a_reference_that_would_not_fit_again_is_left_out() -> None:
    assert fits(b"x" * 1000)
    assert not fits(b"x" * 950_000)
