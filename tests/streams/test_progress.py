"""How far the lanes have been taken: what stands in no batch yet is not taken, whatever was fetched."""

from types import SimpleNamespace
from typing import Any, cast

from faust.types import TP

from schemas.records import Lane
from streams.batching import Batcher
from streams.intake import LaneIntake
from streams.lanes import Lanes, Run

ONE, OTHER = TP("images.online", 0), TP("images.online", 1)


class _Waiting:
    """A batcher that never makes a batch by itself."""

    def __init__(self) -> None:
        self.lanes = Lanes(0.0)

    def put(self, lane: Lane, run: Run) -> None:
        self.lanes.put(lane, run)


def _intake() -> tuple[LaneIntake, Lanes]:
    waiting = _Waiting()
    intake = LaneIntake({"images.online": Lane.ONLINE}, drain_s=1.0)
    intake.batcher = cast("Batcher", waiting)
    return intake, waiting.lanes


def _records(first: int, count: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in range(first, first + count)]


async def test_what_is_fetched_is_not_taken_before_it_is_in_a_batch() -> None:
    intake, lanes = _intake()
    intake.accept(ONE, _records(10, 5))
    intake.accept(OTHER, _records(7, 3))
    assert intake.taken == {ONE: 10, OTHER: 7}
    lanes.gather(4)
    assert intake.taken == {ONE: 14, OTHER: 7}
    intake.accept(ONE, _records(15, 2))
    lanes.gather(4)
    assert intake.taken == {ONE: 15, OTHER: 10}
    lanes.gather(4)
    assert intake.taken == {ONE: 17, OTHER: 10}


async def test_what_is_given_back_is_not_taken_and_what_is_gone_is_not_ours() -> None:
    intake, lanes = _intake()
    intake.accept(ONE, _records(10, 5))
    intake.accept(OTHER, _records(7, 3))
    lanes.gather(2)
    intake.give_back()
    assert intake.taken == {ONE: 12, OTHER: 7}
    intake.forget()
    assert intake.taken == {}
