"""A diff as a whole: what was compared, what came out, and which images somebody should look at."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import ConfigurationError
from sinks.diff_core import Change, Seen
from sinks.diff_pairs import Common, ImagePair, pairs
from sinks.diff_policy import DiffPolicy
from sinks.diff_side import Side
from sinks.diff_tally import Interval, Summary, Tally


@dataclass(frozen=True, slots=True)
class SideFacts:
    """What a side was: its text on the command line, the versions that made its results, how many images it has results of."""

    text: str
    versions: tuple[str, ...]
    images: int
    superseded: int = 0

    @classmethod
    def of(cls, side: Side) -> "SideFacts":
        """Of a side."""
        return cls(side.text, side.versions, len(side.rows), side.superseded)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well a side agrees with ground truth, on `images` of its images."""

    images: int
    map50: float
    map50_95: float


Scorer = Callable[[Sequence[tuple[str, Seen]]], Accuracy]
"""From the URIs of images and what was found in them to how right that is; images that the truth does not know are left out."""


@dataclass(frozen=True, slots=True, eq=False)
class DiffReport:
    """What came out. `classes` by name; `confusions`: (label, label, how often), most frequent first; `worst`: worst first."""

    first: SideFacts
    second: SideFacts
    images: int
    only_first: int
    only_second: int
    reframed: int
    policy: DiffPolicy
    total: Summary
    classes: Mapping[str, Summary]
    confusions: tuple[tuple[str, str, int], ...]
    worst: tuple[ImagePair, ...]
    accuracy: tuple[Accuracy, Accuracy] | None = None

    @property
    def unpaired(self) -> float:
        """The share of images, 0..1, that could not be compared: on one side only, or with pictures of different sizes."""
        left = self.only_first + self.only_second + self.reframed
        return left / (left + self.images)

    def accuracy_drop(self, figure: str) -> float | None:
        """How much lower the second side's `map50` or `map50_95` is; None without ground truth."""
        if self.accuracy is None:
            return None
        one, two = (float(getattr(side, figure)) for side in self.accuracy)
        return one - two

    def figures(self) -> dict[str, Any]:
        """All but the images, as JSON has it."""
        return {
            "first": _facts(self.first),
            "second": _facts(self.second),
            "images": self.images,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "reframed": self.reframed,
            "unpaired": self.unpaired,
            "match_iou": self.policy.match_iou,
            "same_iou": self.policy.same_iou,
            "same_score": self.policy.same_score,
            "min_score": self.policy.min_score,
            "total": _summary(self.total),
            "classes": {label: _summary(summary) for label, summary in self.classes.items()},
            "confusions": [{"from": one, "to": two, "objects": often} for one, two, often in self.confusions],
            "worst": [
                {"tenant": pair.tenant, "image_id": pair.image_id, "badness": pair.badness} for pair in self.worst
            ],
            "accuracy": None if self.accuracy is None else [_accuracy(side) for side in self.accuracy],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffJob:
    """How to compare. `worst`: how many images are shown; `watch` gets every pair as it is compared; `score`: with ground truth at hand."""

    policy: DiffPolicy = field(default_factory=DiffPolicy)
    worst: int = 20
    seed: int = 0
    watch: Callable[[ImagePair], object] = lambda _: None
    score: Scorer | None = None


def make_report(first: Side, second: Side, job: DiffJob) -> DiffReport:
    """Compare two sides, image by image in the order of tenant and image id.

    Raises ConfigurationError where no image can be compared: an empty diff must not look like a good one.
    """
    common = Common.of(first, second)
    for side in (first, second):
        if not side.rows:
            raise ConfigurationError(f"there are no results of {side.text}")
    if not common.keys:
        raise ConfigurationError(f"{first.text} and {second.text} have no image in common that could be compared")
    tally, worst = Tally(job.seed), _Worst(job.worst)
    for pair in pairs(first, second, common.keys, job.policy):
        tally.add(pair)
        worst.add(pair)
        job.watch(pair)
    return DiffReport(
        first=SideFacts.of(first),
        second=SideFacts.of(second),
        images=tally.images,
        only_first=common.only_first,
        only_second=common.only_second,
        reframed=common.reframed,
        policy=job.policy,
        total=tally.total(),
        classes=tally.classes(),
        confusions=tuple((*labels, often) for labels, often in _frequent(tally.confusions)),
        worst=worst.taken(),
        accuracy=job.score and (_score(job.score, first, common), _score(job.score, second, common)),
    )


class _Worst:
    """Keeps the worst images; of equally bad ones those that came first."""

    def __init__(self, most: int) -> None:
        self._most, self._heap, self._count = most, list[tuple[float, int, ImagePair]](), 0

    def add(self, pair: ImagePair) -> None:
        self._count -= 1
        badness = pair.badness
        if self._most and badness > 0:
            put = heapq.heappush if len(self._heap) < self._most else heapq.heappushpop
            put(self._heap, (badness, self._count, pair))

    def taken(self) -> tuple[ImagePair, ...]:
        return tuple(pair for _, _, pair in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


def _score(score: Scorer, side: Side, common: Common) -> Accuracy:
    rows = [side.rows[key] for key in common.keys]
    return score([(side.uris[row], side.seen(row)) for row in rows])


def _frequent(confusions: Mapping[tuple[str, str], int]) -> list[tuple[tuple[str, str], int]]:
    return sorted(confusions.items(), key=lambda entry: (-entry[1], entry[0]))


def _facts(side: SideFacts) -> dict[str, Any]:
    return {
        "text": side.text,
        "versions": list(side.versions),
        "images": side.images,
        "superseded": side.superseded,
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "objects": summary.objects,
        "disagreement": _interval(summary.disagreement),
        **{change.value: {"count": summary.counts[change], **_interval(summary.shares[change])} for change in Change},
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {"share": interval.share, "low": interval.low, "high": interval.high}


def _accuracy(accuracy: Accuracy) -> dict[str, float]:
    return {"images": accuracy.images, "map50": accuracy.map50, "map50_95": accuracy.map50_95}
