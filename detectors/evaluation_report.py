"""The figures of an evaluation as a file, which a later one takes as its baseline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detectors.base import ModelInfo
from detectors.evaluation import Evaluation
from detectors.evaluation_slices import SliceScore
from detectors.evaluation_truth import GroundTruth
from schemas.errors import ConfigurationError

Report = Mapping[str, Any]
"""What `make_report` makes, or what was read from a file."""

_BIN = ("detections", "mean_score", "share_correct")
_SLICE = ("objects", "map50_95", "map50", "recall")
_FIGURES = ("images", "objects", "detections", "map50_95", "map50", "confidence", "precision", "recall", "f1")


def make_report(
    model: ModelInfo, truth: GroundTruth, evaluation: Evaluation, missing: Mapping[Path, str], warnings: Sequence[str]
) -> dict[str, Any]:
    """All figures, in types that JSON has, and which model on which annotations they are of."""
    calibration, confusion = evaluation.calibration, evaluation.confusion
    return {
        "model": {name: value for name, value in asdict(model).items() if name != "labels"},
        "annotations": truth.digest,
        **{name: getattr(evaluation, name) for name in _FIGURES},
        "calibration": {
            "error": calibration.error,
            "floor": calibration.floor,
            "bins": [dict(zip(_BIN, entry, strict=True)) for entry in calibration.bins],
        },
        "classes": [
            {**asdict(score), "curve": [round(float(value), 5) for value in score.curve]}
            for score in evaluation.classes
        ],
        "slices": [_as_json(score) for score in evaluation.slices],
        "confusion": {
            "labels": list(confusion.labels),
            "counts": confusion.counts.tolist(),
            "confidence": confusion.confidence,
        },
        "missing": {str(path): reason for path, reason in missing.items()},
        "warnings": list(warnings),
    }


def write_report(report: Report, path: Path) -> None:
    """As JSON. Raises ConfigurationError where the place cannot be written."""
    try:
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write the report {path}: {error.strerror}") from error


def read_baseline(path: Path, truth: GroundTruth) -> Report:
    """An earlier report. Raises ConfigurationError where it is none, or one on other annotations, with which nothing can be compared."""
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
        annotations, _, _ = report["annotations"], report["map50"], {score["label"] for score in report["classes"]}
    except OSError as error:
        raise ConfigurationError(f"cannot read the baseline {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"the baseline {path} is no report of `sightstream evaluate --json`") from error
    if annotations != truth.digest:
        raise ConfigurationError(f"the baseline {path} was measured on other annotations: there is nothing to compare")
    return report


def _as_json(score: SliceScore) -> dict[str, Any]:
    return {
        "slicing": score.slicing,
        "name": score.name,
        **{name: getattr(score, name) for name in _SLICE},
        "classes": {label: {name: getattr(one, name) for name in _SLICE} for label, one in score.classes.items()},
    }
