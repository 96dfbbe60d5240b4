"""The report beside an exported model that says whether it finds what its source finds. Imports nothing heavy."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

SUFFIX = ".parity.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """What was compared, and whether it held.

    `source` and `digest`: `sha256:` + hex of the model that was exported and of what it became (of an IR over the `.xml` and then the
    `.bin`). `iou`, `score` and `share` are the tolerance (`detectors.parity.Tolerance`); `defects` of the boxes `compared` were beyond
    it. `notes`: what else a reader should know.
    """

    source: str
    digest: str
    holds: bool
    images: int
    compared: int
    defects: int
    worst_iou: float
    worst_score_drift: float
    iou: float
    score: float
    share: float
    notes: tuple[str, ...] = ()


def report_path(model: Path) -> Path:
    """Where the report of a model file lies: `NAME.int8.xml.parity.json`. The whole name, as `.onnx` and `.xml` may share a stem."""
    return model.with_name(model.name + SUFFIX)


def write_parity_report(model: Path, report: ParityReport) -> Path:
    """Put the report beside the model, whole or not at all; returns where."""
    path = report_path(model)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
    return path


def read_parity_report(model: Path) -> ParityReport | None:
    """The report of a model file; None where there is none that can be read.

    It vouches for files of these digests only: hold them against the files before relying on `holds`.
    """
    try:
        content = json.loads(report_path(model).read_text(encoding="utf-8"))
        report = ParityReport(**{**content, "notes": tuple(content.get("notes", ()))})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return report if isinstance(report.holds, bool) else None
