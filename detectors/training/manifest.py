"""What a model registry has to know of a package: one JSON file, and nothing in it that was not measured or given."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detectors.parity import Comparison

_FORMAT = 1
_OVERALL = ("images", "objects", "map50", "map50_95", "confidence", "precision", "recall")
_CLASS = ("label", "objects", "map50", "map50_95", "precision", "recall")
_SLICE = ("slicing", "name", "objects", "map50", "map50_95", "recall")


@dataclass(frozen=True, slots=True)
class Threshold:
    """The score that detections need unless somebody asks for another.

    Where it was chosen by measurement: `wanted`, the precision that it should reach, None for the best F1; `precision` and `recall`,
    what it reached on `images` pictures with the annotations of `data`. Otherwise it was given, and the rest is None.
    """

    confidence: float
    wanted: float | None = None
    precision: float | None = None
    recall: float | None = None
    images: int | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A packaged model. `digest`: of the ONNX file. `metrics`: see `summarise`; None where nobody evaluated it.

    `lineage`: digests of data and checkpoint, version of the code, optimisation steps, scores on the validation set, the recipe.
    """

    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    image_size: int
    stride: int
    parameters: int
    threshold: Threshold | None
    metrics: Mapping[str, Any] | None
    parity: tuple[Comparison, ...]
    licence: str
    lineage: Mapping[str, Any]

    def to_json(self, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The manifest of a package of these files."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "files": list(files),
            "labels": list(self.labels),
            "input": {
                "size": [self.image_size, self.image_size],
                "stride": self.stride,
                "layout": "float32 (n, 3, height, width), RGB in 0..1",
            },
            "parameters": self.parameters,
            "threshold": self.threshold and asdict(self.threshold),
            "metrics": self.metrics,
            "parity": {
                "holds": all(comparison.holds for comparison in self.parity),
                "comparisons": [describe_comparison(comparison) for comparison in self.parity],
            },
            "licence": self.licence or None,
            "lineage": dict(self.lineage),
        }


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and hash of a file of the package."""
    content = path.read_bytes()
    return {"path": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def describe_comparison(comparison: Comparison) -> dict[str, Any]:
    """A comparison's figures, without the boxes."""
    return {
        "what": comparison.subject,
        "holds": comparison.holds,
        "images": comparison.images,
        "boxes": comparison.compared,
        "beyond": len(comparison.defects),
        "worst_iou": round(comparison.worst_iou, 5),
        "worst_score_drift": round(comparison.worst_score_drift, 5),
    }


def summarise(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a report of `sightstream evaluate`, without curves. Raises KeyError or TypeError where it is none."""
    return {
        "annotations": report["annotations"],
        "backend": f"{report['model']['backend']}, {report['model']['precision']}",
        **{name: report[name] for name in _OVERALL},
        "classes": [{name: entry[name] for name in _CLASS} for entry in report["classes"]],
        "slices": [{name: entry[name] for name in _SLICE} for entry in report["slices"]],
    }
