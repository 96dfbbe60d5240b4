"""What `sightstream evaluate` does between its command line and its tables: find the truth, detect, hold one against the other."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from detectors.base import ModelInfo
from detectors.evaluation import Evaluation, evaluate
from detectors.evaluation_attributes import Appearance
from detectors.evaluation_report import make_report
from detectors.evaluation_run import predict
from detectors.evaluation_truth import ANNOTATIONS, GroundTruth, find_images, match_classes, read_truth
from detectors.registry import open_detector
from infra.settings import Settings
from infra.wiring import ENGINE
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Ground truth, and the images' files by id."""

    truth: GroundTruth
    files: Mapping[int, Path]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What came out. `missing`: why an image was not read, by file; `warnings`: what a reader of the figures should know."""

    model: ModelInfo
    evaluation: Evaluation
    missing: Mapping[Path, str]
    warnings: Sequence[str]
    report: dict[str, object]


def find_data(data: Path, images: Path | None) -> Data:
    """Read a data set's folder or a file of annotations; `images`: where the pictures are, if neither beside it nor in `images/` there.

    Raises ConfigurationError where there is none, or nothing in it.
    """
    annotations = data / ANNOTATIONS if data.is_dir() else data
    if data.is_dir() and not annotations.exists():
        splits = sorted(str(path.parent) for path in data.glob(f"*/{ANNOTATIONS}"))
        hint = f"; there is one in {', '.join(splits)}" if splits else ""
        raise ConfigurationError(f"there is no {ANNOTATIONS} in {data}{hint}")
    truth = read_truth(annotations)
    if not truth.files:
        raise ConfigurationError(f"there are no images in {annotations}")
    return Data(truth, find_images(truth, annotations, images))


def measure(settings: Settings, data: Data, wanted: DetectParameters, at: float | None) -> Measured:
    """Detect on all images, with a bar on stderr, and evaluate; `at`: the score where precision and recall are reported."""
    detector = open_detector(settings.model, settings.state_dir / ENGINE)
    try:
        model, appearance = detector.model, Appearance(data.truth)
        classes = match_classes(model.labels, data.truth.categories)
        with tqdm(
            total=len(data.files), unit="img", desc="evaluating", file=sys.stderr, disable=None, leave=False
        ) as bar:
            found = predict(detector, data.files, settings.images, wanted, bar.update, appearance.look)
    finally:
        detector.close()
    evaluation = evaluate(data.truth, found.image_ids, found.boxes, classes, at, appearance.values)
    report = make_report(model, data.truth, evaluation, found.missing, classes.warnings)
    return Measured(model, evaluation, found.missing, classes.warnings, report)
