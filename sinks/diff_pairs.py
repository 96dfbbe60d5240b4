"""The images that two sides have in common, one after another, each with what changed in it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sinks.diff_core import DISAGREEMENTS, Change, ImageDiff, Seen, compare
from sinks.diff_policy import DiffPolicy
from sinks.diff_side import Side


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """An image as both sides saw it. `size`: (width, height) in pixels; `results`: the ids of both results."""

    tenant: str
    image_id: str
    uri: str
    size: tuple[int, int]
    first: Seen
    second: Seen
    diff: ImageDiff
    results: tuple[str, str] = ("", "")

    @property
    def badness(self) -> float:
        """How much somebody should look at it: the scores of what is disagreed on, how far boxes moved, how far scores went."""
        total = 0.0
        for row, change in enumerate(self.diff.changes):
            scores = self.scores(row)
            if change in DISAGREEMENTS:
                total += max(score for score in scores if score is not None)
            elif change is Change.MOVED:
                total += 1 - float(self.diff.iou[row])
            elif change is Change.RESCORED and scores[0] is not None and scores[1] is not None:
                total += abs(scores[0] - scores[1])
        return total

    def scores(self, row: int) -> tuple[float | None, float | None]:
        """The scores of an object, None on the side where it is not."""
        one, two = int(self.diff.first[row]), int(self.diff.second[row])
        return (
            float(self.first.scores[one]) if one >= 0 else None,
            float(self.second.scores[two]) if two >= 0 else None,
        )

    def labels(self, row: int) -> tuple[str | None, str | None]:
        """The labels of an object, None on the side where it is not."""
        one, two = int(self.diff.first[row]), int(self.diff.second[row])
        return (str(self.first.labels[one]) if one >= 0 else None, str(self.second.labels[two]) if two >= 0 else None)


@dataclass(frozen=True, slots=True)
class Common:
    """Which images can be compared: `keys` are on both sides; `reframed` are, too, but with pictures of different sizes."""

    keys: tuple[tuple[str, str], ...]
    only_first: int
    only_second: int
    reframed: int

    @classmethod
    def of(cls, first: Side, second: Side) -> "Common":
        """The images of two sides."""
        both = [key for key in first.rows if key in second.rows]
        alike = [key for key in both if first.size(first.rows[key]) == second.size(second.rows[key])]
        return cls(
            tuple(alike), len(first.rows) - len(both), len(second.rows) - len(both), reframed=len(both) - len(alike)
        )


def pairs(
    first: Side, second: Side, keys: Iterable[tuple[str, str]], policy: DiffPolicy | None = None
) -> Iterator[ImagePair]:
    """What became of the objects of these images."""
    for key in keys:
        one, two = first.rows[key], second.rows[key]
        seen = first.seen(one), second.seen(two)
        yield ImagePair(
            *key,
            uri=first.uris[one],
            size=first.size(one),
            first=seen[0],
            second=seen[1],
            diff=compare(*seen, policy),
            results=(first.ids[one], second.ids[two]),
        )
