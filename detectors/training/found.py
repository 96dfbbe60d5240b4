"""What a reader of some format finds, before anybody looked at the pictures."""

from dataclasses import dataclass
from pathlib import Path

from detectors.training.dataset import Corners
from detectors.training.polygons import Outline


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong, and where: a file and its line, or the entry of a file that has no lines worth the name."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class FoundLabel:
    """An object by the name of its class. `box` and `outline`: pixels, or shares of the frame where the picture says `relative`."""

    name: str
    box: Corners
    place: str
    outline: Outline = ()
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """A picture that labels name. `name`: what it is called below the pictures' folder. `size`: what the labels claim, if they do.

    `split`: `train`, `val`, `test` or "". `relative`: boxes are shares of the frame, not pixels.
    """

    file: Path
    name: Path
    place: str
    labels: tuple[FoundLabel, ...] = ()
    size: tuple[int, int] | None = None
    split: str = ""
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """All of a source. `names`: the classes that it declares, in its order; labels may still name others."""

    names: tuple[str, ...]
    pictures: tuple[FoundPicture, ...]
    defects: tuple[Defect, ...]
