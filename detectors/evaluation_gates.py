"""What an evaluation must reach: least figures, and how far they may fall behind a baseline. Pure: reports in, verdicts out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from detectors.evaluation_report import Report
from detectors.evaluation_slices import SLICINGS
from schemas.errors import ConfigurationError

_ALL = "all classes"
_OVERALL = ("map50_95", "map50", "precision", "recall", "f1")
_OF_CLASS = ("map50_95", "map50", "precision", "recall")
_OF_SLICE = ("map50_95", "map50", "recall")
# Precision and recall move with the score at which F1 happens to be best: what may not fall is average precision.
_HELD = ("map50_95", "map50")
_GATE = re.compile(r"(?P<metric>\w+)(\.(?P<label>.+?))?(@(?P<slicing>\w+)=(?P<name>\w+))?=(?P<least>[^=]*)")
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Gate:
    """The least that a figure may be: `metric` over all classes or of `label`, over all objects or those of a slice."""

    metric: str
    least: float
    label: str | None = None
    place: tuple[str, str] | None = None

    def __str__(self) -> str:
        label = f".{self.label}" if self.label else ""
        return f"{self.metric}{label}@{'='.join(self.place)}" if self.place else f"{self.metric}{label}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of `what`, all classes or one, in the baseline and now; None where there is none."""

    what: str
    metric: str
    before: float | None
    now: float | None


def parse_gate(text: str, labels: Iterable[str]) -> Gate:
    """Read METRIC[.CLASS][@SLICING=SLICE]=VALUE, such as `map50=0.9`, `recall.qr=0.8`, `map50@size=small=0.7`.

    `labels`: the classes there are. Raises ConfigurationError for anything that no report could answer.
    """
    found = _GATE.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{text!r} is not METRIC[.CLASS][@SLICING=SLICE]=VALUE, such as map50=0.9")
    place = (found["slicing"], found["name"]) if found["slicing"] else None
    metrics = _OF_SLICE if place else _OF_CLASS if found["label"] else _OVERALL
    _check(text, "metric", found["metric"], metrics)
    if found["label"]:
        _check(text, "class", found["label"], labels)
    if place:
        slices = {slicing.name: slicing.slices for slicing in SLICINGS}
        _check(text, "slicing", place[0], slices)
        _check(text, "slice", place[1], slices[place[0]])
    try:
        least = float(found["least"])
    except ValueError:
        least = -1
    if not 0 <= least <= 1:
        raise ConfigurationError(f"in {text!r} {found['least']!r} is no number from 0 to 1")
    return Gate(found["metric"], least, found["label"], place)


def check_gates(report: Report, gates: Sequence[Gate]) -> list[str]:
    """A line for each gate that fails; a figure that there is none of fails, too."""
    lines = []
    for gate in gates:
        value = read_figure(report, gate)
        if value is None:
            lines.append(f"{gate} has no figure: the images have no such object, or the model no such class")
        elif value < gate.least - _ROUNDING:
            lines.append(f"{gate} is {value:.4f}, wanted at least {gate.least:g}")
    return lines


def read_figure(report: Report, gate: Gate) -> float | None:
    """What a gate is about, None where there is nothing of the kind in the images."""
    found = report
    if gate.place is not None:
        known = {(entry["slicing"], entry["name"]): entry for entry in report["slices"]}
        found = known.get(gate.place, {})
        if gate.label is not None:
            found = found.get("classes", {}).get(gate.label, {})
    elif gate.label is not None:
        found = next((entry for entry in report["classes"] if entry["label"] == gate.label), {})
    value: float | None = found.get(gate.metric)
    return value


def compare(report: Report, baseline: Report) -> tuple[Difference, ...]:
    """All classes together, then each that either report has objects of."""
    labels = dict.fromkeys(
        entry["label"] for one in (report, baseline) for entry in one["classes"] if entry["map50"] is not None
    )
    return tuple(
        Difference(
            label or _ALL,
            metric,
            read_figure(baseline, Gate(metric, 0, label)),
            read_figure(report, Gate(metric, 0, label)),
        )
        for label in (None, *labels)
        for metric in _OF_CLASS
    )


def check_regression(differences: Sequence[Difference], most: float) -> list[str]:
    """A line for each mAP, of all classes or of one, that fell by more than `most`, or is not there any more."""
    return [
        f"{one.metric} of {one.what} fell from {one.before:.4f} to {'nothing' if one.now is None else f'{one.now:.4f}'}, "
        f"by more than {most:g}"
        for one in differences
        if one.metric in _HELD
        and one.before is not None
        and (one.now is None or one.now < one.before - most - _ROUNDING)
    ]


def _check(text: str, what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise ConfigurationError(f"in {text!r} there is no {what} {name!r}; there are {', '.join(names)}")
