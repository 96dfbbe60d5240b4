"""An evaluation as tables for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infra.text_table import table

if TYPE_CHECKING:
    from detectors.evaluation import Evaluation
    from detectors.evaluation_gates import Difference

# More classes than this make a matrix that no terminal shows.
_MOST_CONFUSED = 10


def tell_classes(evaluation: "Evaluation") -> str:
    """A row for each class that there are objects of, and what holds for all of them."""
    shown = [score for score in evaluation.classes if score.objects]
    figures = [(one.label, one.objects, one.map50_95, one.map50, one.precision, one.recall) for one in shown]
    total = evaluation
    figures.append(("all classes", total.objects, total.map50_95, total.map50, total.precision, total.recall))
    calibration = evaluation.calibration
    below = (
        f"{total.images} images; precision and recall at confidence {total.confidence:.3f}, F1 {total.f1:.3f}; "
        f"calibration error {_number(calibration.error)} above {calibration.floor}"
    )
    columns = ("class", "objects", "mAP50-95", "mAP50", "precision", "recall")
    return "\n".join(
        [table(columns, [(name, str(count), *map(_number, rest)) for name, count, *rest in figures]), below]
    )


def tell_slices(evaluation: "Evaluation") -> str:
    """A row for each slice that an object lies in."""
    rows = [
        (f"{one.slicing} {one.name}", str(one.objects), _number(one.map50_95), _number(one.map50), _number(one.recall))
        for one in evaluation.slices
    ]
    return table(("slice", "objects", "mAP50-95", "mAP50", "recall"), rows)


def tell_confusion(evaluation: "Evaluation") -> str:
    """Rows are what is there, columns what was detected; "" for more classes than a terminal shows."""
    confusion = evaluation.confusion
    if len(confusion.labels) > _MOST_CONFUSED + 1:
        return ""
    rows = [(label, *map(str, counts)) for label, counts in zip(confusion.labels, confusion.counts, strict=True)]
    return table(("there is, detected as", *confusion.labels), rows)


def tell_differences(differences: Sequence["Difference"]) -> str:
    """A row for each class, a column for each figure: now, and how far that is from the baseline."""
    metrics = list(dict.fromkeys(one.metric for one in differences))
    told: dict[str, dict[str, str]] = {}
    for one in differences:
        change = "" if one.now is None or one.before is None else f" ({one.now - one.before:+.4f})"
        told.setdefault(one.what, {})[one.metric] = f"{_number(one.now)}{change}"
    rows = [(what, *(figures[metric] for metric in metrics)) for what, figures in told.items()]
    return table(("beside the baseline", *metrics), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
