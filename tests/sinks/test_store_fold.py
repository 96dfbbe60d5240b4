"""The fold: topics are read side by side, so the order of records, and reading one again, must not matter."""

from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sinks.store_fold import DELETED, EXPIRED, Known, Plan, Tombstone, fold
from sinks.store_images import ImageRow, State
from sinks.store_records import Detail
from tests.support.stores import START_US, S, changes, completion, deletion, loss, redriven, silently, submission

KEY = ("acme", "i1")


class Memory:
    """A store in a dictionary: applies plans as the database does."""

    def __init__(self) -> None:
        self.known = Known()
        self.labels: dict[tuple[str, str], dict[str, float]] = {}

    def write(self, *records: Any) -> Plan:
        plan = fold(self.known, changes(*records))
        for key in plan.forgotten:
            self.labels.pop(key, None)
            self.known.results = {one for one in self.known.results if one[:2] != key}
            self.known.silent = {one for one in self.known.silent if one[:2] != key}
        self.labels.update(plan.labels)
        return plan

    def row(self) -> ImageRow:
        return self.known.rows[KEY]


RECORDS = [
    submission(),
    submission(seen_us=START_US + 9 * S),
    completion(),
    completion(after_s=5, id="r2", model_version="2", scores={"cat": 0.5}),
    completion(after_s=5, id="r1", model_version="1b", scores={"cow": 0.25}),
    loss(at=3),
    loss(at=7),
    redriven(letter=3, at=50),
    redriven(letter=7, at=90),
    silently(after_s=60, id="s1", model_version="9", scores={"owl": 0.9}),
    silently(after_s=70, id="r2", model_version="2", scores={"owl": 0.9}),
]


@given(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=12), st.randoms(), st.data())
def test_neither_the_order_nor_the_number_of_times_matters(records: list[Any], random: Any, data: Any) -> None:
    straight, other = Memory(), Memory()
    straight.write(*records)
    shuffled = records + data.draw(st.lists(st.sampled_from(records), max_size=4))
    random.shuffle(shuffled)
    for record in shuffled:
        other.write(record)
    assert asdict(straight.row()) == asdict(other.row())
    assert straight.labels == other.labels


@given(st.permutations([*RECORDS, deletion()]))
def test_nothing_brings_back_what_was_deleted(records: list[Any]) -> None:
    memory = Memory()
    for record in [*records, *RECORDS]:
        memory.write(record)
    assert KEY not in memory.known.rows
    assert KEY not in memory.labels
    assert memory.known.tombstones[KEY].reason == DELETED


def test_a_result_counts_more_than_a_failure_whichever_comes_first() -> None:
    for records in ((loss(), completion()), (completion(), loss())):
        memory = Memory()
        memory.write(submission(), *records)
        assert memory.row().state == State.COMPLETED


def test_a_redrive_opens_a_failed_image_again_and_its_next_failure_closes_it() -> None:
    memory = Memory()
    memory.write(submission(), loss(at=5))
    assert memory.row().state == State.FAILED
    memory.write(redriven(letter=5, at=40))
    assert (memory.row().state, memory.row().source_offset) == (State.OPEN, 40)
    memory.write(loss(at=8))
    assert (memory.row().state, memory.row().failure_attempts) == (State.FAILED, 9)


def test_the_newest_result_shows_and_labels_are_those_of_it() -> None:
    memory = Memory()
    memory.write(submission(), completion(scores={"dog": 0.5}))
    memory.write(completion(after_s=9, id="later", scores={"cat": 0.75}))
    memory.write(completion(after_s=1, id="earlier", scores={"cow": 0.9}))
    assert (memory.row().result_id, memory.row().top_score) == ("later", 0.75)
    assert memory.labels[KEY] == {"cat": 0.75}


def test_the_same_result_again_changes_nothing() -> None:
    memory = Memory()
    assert memory.write(submission(), completion()).first_results
    plan = memory.write(completion(after_s=60))
    assert not plan.rows
    assert not plan.results
    assert not plan.first_results


def test_a_silent_result_is_kept_and_changes_nothing_else() -> None:
    memory = Memory()
    memory.write(submission(), completion())
    before = asdict(memory.row())
    plan = memory.write(silently(after_s=60, id="s"))
    assert [one.id for one in plan.silent] == ["s"]
    assert (plan.results, plan.first_results, plan.labels) == ([], [], {})
    assert {**asdict(memory.row()), "seen_us": 0} == {**before, "seen_us": 0}
    assert not memory.write(silently(after_s=90, id="s")).silent


def test_an_image_of_which_only_a_silent_result_is_known_is_hidden() -> None:
    memory = Memory()
    memory.write(silently(id="s"))
    assert (memory.row().detail, memory.row().state) == (Detail.SILENT, State.OPEN)
    memory.write(submission())
    assert (memory.row().detail, memory.row().sha256) == (Detail.REQUEST, "ab" * 32)


def test_work_that_a_replay_did_before_becomes_the_outcome_once_users_get_it() -> None:
    memory = Memory()
    memory.write(submission(), silently(id="r2"))
    assert memory.row().state == State.OPEN
    assert memory.write(completion(id="r2")).results
    assert (memory.row().state, memory.row().result_id) == (State.COMPLETED, "r2")
    assert not memory.write(silently(id="r2")).silent


def test_a_replay_brings_back_nothing_that_has_expired() -> None:
    memory = Memory()
    memory.known.tombstones[KEY] = Tombstone(EXPIRED, START_US)
    plan = memory.write(silently(id="s"))
    assert (plan.silent, plan.rows, plan.revived) == ([], {}, set())


def test_a_request_says_more_than_what_its_result_repeats() -> None:
    memory = Memory()
    memory.write(completion())
    assert memory.row().sha256 is None
    memory.write(submission())
    assert memory.row().sha256 == "ab" * 32
    memory.write(completion(id="r2"))
    assert memory.row().sha256 == "ab" * 32
