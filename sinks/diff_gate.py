"""Bounds on a diff, as `lost>1%`: what fails a build."""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from schemas.errors import ConfigurationError
from sinks.diff_core import Change
from sinks.diff_report import DiffReport

_TEXT = re.compile(
    r"\s*(?P<name>[a-z0-9_]+)(?:\.(?P<label>.+?))?\s*(?P<sign>[<>]=?)\s*(?P<value>\d+(\.\d+)?|\.\d+)\s*(?P<percent>%?)\s*"
)
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
DISAGREEMENT, UNPAIRED = "disagreement", "unpaired"
ACCURACY = {"map50_drop": "map50", "map50_95_drop": "map50_95"}
"""Figures that need ground truth: how much lower the second side's is."""
_NAMES = (*(change.value for change in Change), DISAGREEMENT, UNPAIRED, *ACCURACY)


@dataclass(frozen=True, slots=True)
class DiffGate:
    """A figure that must not be so. `value` in 0..1; `label` None for all classes together."""

    text: str
    name: str
    label: str | None
    sign: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "DiffGate":
        """Read `NAME[.CLASS]>VALUE`, a share in 0..1 or in %. Raises ConfigurationError."""
        found = _TEXT.fullmatch(text)
        if found is None or found["name"] not in _NAMES:
            raise ConfigurationError(f"{text!r} is not NAME[.CLASS]>SHARE, such as lost>1%; NAME: {', '.join(_NAMES)}")
        value = float(found["value"]) / (100 if found["percent"] else 1)
        if value > 1:
            raise ConfigurationError(f"{text!r}: a share is at most 1, or 100%")
        if found["label"] is not None and found["name"] in {UNPAIRED, *ACCURACY}:
            raise ConfigurationError(f"{text!r}: {found['name']} is not counted by class")
        return cls(text, found["name"], found["label"], found["sign"], value)

    @property
    def needs_truth(self) -> bool:
        """Whether it is about accuracy."""
        return self.name in ACCURACY

    def broken_by(self, report: DiffReport) -> str | None:
        """What is wrong, or None. A class that neither side saw breaks nothing."""
        figure = self._figure(report)
        if figure is None or not _SIGNS[self.sign](figure, self.value):
            return None
        of = f" of {self.label}" if self.label else ""
        return f"{self.text}: {self.name}{of} is {figure:.4%}"

    def _figure(self, report: DiffReport) -> float | None:
        if self.needs_truth:
            return report.accuracy_drop(ACCURACY[self.name])
        if self.name == UNPAIRED:
            return report.unpaired
        summary = report.total if self.label is None else report.classes.get(self.label)
        if summary is None:
            return None
        return (summary.disagreement if self.name == DISAGREEMENT else summary.shares[Change(self.name)]).share


def broken(gates: Iterable[DiffGate], report: DiffReport) -> list[str]:
    """What is wrong, a line each."""
    return [line for gate in gates if (line := gate.broken_by(report)) is not None]
