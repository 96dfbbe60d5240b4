"""How other tools lay out their data sets on disk."""

import re
from pathlib import Path

from detectors.training.frames import SUFFIXES

# What a part is called, and what all its names begin with.
_SPLIT = re.compile(r"(?:^|[^a-z])(train|val|test)(?:ing|id|idation)?(?:[^a-z]|$)", re.IGNORECASE)


def split_of(name: str) -> str:
    """`train`, `val` or `test` for names such as `train2017`, `valid`, `instances_val2017` or `testing`; "" for others."""
    found = _SPLIT.search(name)
    return found[1].lower() if found else ""


def find_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, by suffix, in order of name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def find_picture(stem: Path) -> Path | None:
    """The picture of that name, whatever its suffix."""
    for suffix in sorted(SUFFIXES):
        for spelt in (suffix, suffix.upper()):
            file = stem.with_name(stem.name + spelt)
            if file.is_file():
                return file
    return None
