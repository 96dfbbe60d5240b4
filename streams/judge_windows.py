"""What the arms of one rollout did, by windows of event time: counts that add up, in whatever order their records were read."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from schemas.moments import from_us, to_us
from schemas.rollouts import Arm, ArmFigures, Rollout, RolloutKind
from sinks.diff_core import Seen, compare
from streams.judge_policy import JudgePolicy

Key = TypeVar("Key")
Remembered = TypeVar("Remembered")

_STEP = math.log(1.02)  # latencies are counted in classes that are 2 % wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an arm made of an image, or that it `failed`. `at_us`: when that was done, epoch.

    `id` tells the copies of a record, `image` the results of one image in different arms. `latency_ms`: from submission, None where nobody
    waits for it. `seen` is given where the other version may have seen the image, too.
    """

    arm: Arm
    id: str
    image: tuple[str, str]
    at_us: int
    failed: bool = False
    latency_ms: float | None = None
    boxes: int = 0
    seen: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that is known of a window, as in `schemas.rollouts.Verdict`."""

    start: datetime
    end: datetime
    stable: ArmFigures
    candidate: ArmFigures
    pairs: int = 0
    objects: int = 0
    disagreement: float = 0.0


@dataclass(slots=True)
class _Tally:
    results: int = 0
    failures: int = 0
    boxes: int = 0
    latencies: Counter[int] = field(default_factory=Counter)

    def count(self, outcome: Outcome) -> None:
        if outcome.failed:
            self.failures += 1
            return
        self.results += 1
        self.boxes += outcome.boxes
        if outcome.latency_ms is not None:
            self.latencies[math.floor(math.log(max(outcome.latency_ms, 0.01)) / _STEP)] += 1

    def add(self, other: "_Tally") -> None:
        self.results += other.results
        self.failures += other.failures
        self.boxes += other.boxes
        self.latencies += other.latencies

    def figures(self) -> ArmFigures:
        per_image = self.boxes / self.results if self.results else 0.0
        p95_ms = _percentile(self.latencies, 0.95)
        return ArmFigures(results=self.results, failures=self.failures, p95_ms=p95_ms, boxes_per_image=per_image)


@dataclass(slots=True)
class _Cell:
    """One window of the grid."""

    arms: dict[Arm, _Tally] = field(default_factory=lambda: {arm: _Tally() for arm in Arm})
    pairs: int = 0
    objects: int = 0
    disagreed: int = 0

    def add(self, other: "_Cell") -> None:
        for arm, tally in other.arms.items():
            self.arms[arm].add(tally)
        self.pairs += other.pairs
        self.objects += other.objects
        self.disagreed += other.disagreed


class Windows:
    """The windows of a rollout that have not been judged. Windows lie on a grid that begins at the epoch, the same for every judge.

    Of copies of a record one counts. A pair counts in the window in which its second half was done.
    """

    def __init__(self, rollout: Rollout, policy: JudgePolicy) -> None:
        self.rollout = rollout
        self._policy, self._since_us = policy, to_us(rollout.window_start)
        self._step_us = round(rollout.guard.window_s * 1e6)
        self._cells: dict[int, _Cell] = {}
        self._halves: dict[tuple[str, str], Outcome] = {}
        self._known: dict[tuple[Arm, str], None] = {}

    @property
    def next_end(self) -> datetime | None:
        """When the window ends that is to be looked at next: the first of those left in which anything happened, None where nothing did."""
        looked_at = to_us(self.rollout.judged_until) // self._step_us
        index = min((index for index in self._cells if index >= looked_at), default=None)
        return None if index is None else from_us((index + 1) * self._step_us)

    def take(self, outcome: Outcome) -> bool:
        """Count an outcome, of copies only one. One of a window that is done with is good as half of a pair alone.

        False where it came after its window was judged, and not just because a judge that begins reads what was judged before.
        """
        if self._is_known(outcome):
            return True
        other = self._other_half(outcome) if outcome.seen is not None else None
        if other is not None:
            self._compare(outcome, other)
        if outcome.at_us < to_us(self.rollout.window_start):
            return outcome.at_us < self._since_us
        self._cell(outcome.at_us).arms[outcome.arm].count(outcome)
        return True

    def figures(self, end: datetime) -> Figures:
        """What happened from the rollout's `window_start` to before `end`."""
        start, total = self.rollout.window_start, _Cell()
        for cell in self._between(start, end):
            total.add(cell)
        shadowed = self.rollout.kind is RolloutKind.SHADOW
        return Figures(
            start=start,
            end=end,
            stable=total.arms[Arm.STABLE].figures(),
            candidate=total.arms[Arm.SHADOW if shadowed else Arm.CANDIDATE].figures(),
            pairs=total.pairs,
            objects=total.objects,
            disagreement=total.disagreed / total.objects if total.objects else 0.0,
        )

    def follow(self, rollout: Rollout) -> None:
        """Go on with what became of the rollout: windows before its `window_start` are done with."""
        self.rollout = rollout
        first = to_us(rollout.window_start) // self._step_us
        self._cells = {index: cell for index, cell in self._cells.items() if index >= first}

    def _cell(self, at_us: int) -> _Cell:
        return self._cells.setdefault(at_us // self._step_us, _Cell())

    def _between(self, start: datetime, end: datetime) -> Iterator[_Cell]:
        first, last = to_us(start) // self._step_us, to_us(end) // self._step_us
        return (cell for index, cell in sorted(self._cells.items()) if first <= index < last)

    def _is_known(self, outcome: Outcome) -> bool:
        key = (outcome.arm, outcome.id)
        if key in self._known:
            return True
        _remember(self._known, key, None, self._policy.remembered_ids)
        return False

    def _other_half(self, outcome: Outcome) -> Outcome | None:
        """What the other arm made of the image, if that has come; else this one waits for it."""
        other = self._halves.get(outcome.image)
        if other is not None and (other.arm is Arm.SHADOW) is not (outcome.arm is Arm.SHADOW):
            return self._halves.pop(outcome.image)
        _remember(self._halves, outcome.image, outcome, self._policy.waiting_halves)
        return None

    def _compare(self, one: Outcome, other: Outcome) -> None:
        at_us = max(one.at_us, other.at_us)
        if at_us < to_us(self.rollout.window_start) or one.seen is None or other.seen is None:
            return
        diff = compare(one.seen, other.seen)
        cell = self._cell(at_us)
        cell.pairs += 1
        cell.objects += diff.objects
        cell.disagreed += diff.disagreed


def _remember(known: dict[Key, Remembered], key: Key, value: Remembered, most: int) -> None:
    """Enter it; of more than `most` the oldest is forgotten."""
    known[key] = value
    if len(known) > most:
        del known[next(iter(known))]


def _percentile(classes: Counter[int], share: float) -> float:
    """The upper end of the class in which that share of all is reached; 0 for none."""
    left = math.ceil(share * classes.total())
    for index in sorted(classes):
        left -= classes[index]
        if left <= 0:
            return math.exp((index + 1) * _STEP)
    return 0.0
