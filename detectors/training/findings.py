"""What a check of a data set finds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What can be wrong, as it stands in tables and in JSON. `ERRORS` are those that spoil a model or its figures; others are doubts."""

    MISSING_PICTURE = "missing_picture"
    BROKEN_PICTURE = "broken_picture"
    SIZE_MISMATCH = "size_mismatch"
    EMPTY_BOX = "empty_box"
    BOX_BEYOND_FRAME = "box_beyond_frame"
    CONFLICTING_LABELS = "conflicting_labels"
    LEAK = "leak"
    NEAR_LEAK = "near_leak"
    EMPTY_SPLIT = "empty_split"
    NO_OBJECTS = "no_objects"
    TINY_BOX = "tiny_box"
    DOUBLE_BOX = "double_box"
    OUTLINE_ELSEWHERE = "outline_elsewhere"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    UNUSED_CLASS = "unused_class"
    IMBALANCE = "imbalance"


ERRORS = frozenset(
    {
        Kind.MISSING_PICTURE,
        Kind.BROKEN_PICTURE,
        Kind.SIZE_MISMATCH,
        Kind.EMPTY_BOX,
        Kind.BOX_BEYOND_FRAME,
        Kind.CONFLICTING_LABELS,
        Kind.LEAK,
        Kind.NEAR_LEAK,
        Kind.EMPTY_SPLIT,
        Kind.NO_OBJECTS,
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or doubtful: of a picture, of several that are alike, or, with no file at all, of a split or the whole set."""

    kind: Kind
    what: str
    split: str = ""
    files: tuple[Path, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether it spoils a model or its figures."""
        return self.kind in ERRORS

    def __str__(self) -> str:
        place = str(self.files[0]) if self.files else self.split
        return f"{self.kind}: {place}: {self.what}" if place else f"{self.kind}: {self.what}"


@dataclass(frozen=True, slots=True)
class CheckPolicy:
    """Where doubt begins.

    `near_bits`: near duplicates are looked for among pictures whose 64-bit hashes differ in at most so many bits. Of 80 photographs of
    COCO no two come nearer than 18; a copy of quality 30, of half the size or cut by 2 % at each side mostly differs in 6 or fewer.
    `tiny_px`: a box whose shorter side is less. `imbalance`: the most frequent class has so many times the objects of the rarest.
    """

    near_bits: int = 6
    tiny_px: float = 4.0
    imbalance: float = 20.0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """`pictures` and `without_objects`: how many, by split. `objects`: of each class, in the order of the classes, by split."""

    pictures: Mapping[str, int]
    without_objects: Mapping[str, int]
    objects: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> Counter[Kind]:
        """How many findings there are of each kind."""
        return Counter(finding.kind for finding in self.findings)

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.is_error for finding in self.findings)
