"""Tables of the commands `sightstream data`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectors.training.dataset import Dataset


def table_of_splits(splits: "Mapping[str, Dataset]") -> str:
    """Pictures and objects of each class, a column for each split."""
    names = next(iter(splits.values())).names
    counts = {
        split: Counter(label.class_id for p in data.pictures for label in p.labels) for split, data in splits.items()
    }
    rows = [
        ["", *(split or "all" for split in splits)],
        ["pictures", *(f"{len(data.pictures):,}" for data in splits.values())],
        ["without objects", *(f"{sum(not p.labels for p in data.pictures):,}" for data in splits.values())],
        *([name, *(f"{counts[split][number]:,}" for split in splits)] for number, name in enumerate(names)),
    ]
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be, the first to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
