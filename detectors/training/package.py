"""From a trained network to files that can be served and registered: model, 8-bit sibling, model card and manifest."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from detectors.base import Image
from detectors.evaluation import evaluate
from detectors.evaluation_matching import Matches
from detectors.evaluation_run import predict
from detectors.evaluation_threshold import OperatingPoint, confidence_for_f1, confidence_for_precision
from detectors.evaluation_truth import ANNOTATIONS, find_images, match_classes, read_truth
from detectors.export import ExportRequest, export_model
from detectors.image_files import load_files
from detectors.parity import Comparison
from detectors.parity_report import report_path
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec, read_model
from detectors.training.backends import compare_backends, cut_to_shapes
from detectors.training.card import write_card
from detectors.training.checkpoint import Checkpoint, read_checkpoint
from detectors.training.manifest import Manifest, Threshold, describe_file, summarise
from detectors.training.network import STRIDE
from detectors.training.onnx_network import set_metadata, write_onnx
from detectors.training.run_folder import BEST
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters

MANIFEST = "manifest.json"
# Average precision and thresholds look at the whole range of scores.
_EVERYTHING = DetectParameters(confidence=0.001, max_detections=300)
_COMPARED = 24

Watch = Callable[[str], object]
"""Told what is being done, a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRequest:
    """What to package. `source`: a run's folder, whose best checkpoint is taken, or a checkpoint.

    The default score for detections is `confidence`, else chosen on the data set `data`: the lowest at which `precision` of what is
    detected is right, or where F1 is best if that is None. `iou`: of two boxes of a class that overlap more, the better one is kept by
    default. `report`: what `sightstream evaluate --json` wrote of the packaged model. `calibration`: pictures for an 8-bit sibling.
    `about`: a file of Markdown for the card: what nobody can measure.
    """

    source: Path
    out: Path
    name: str
    version: str = ""
    data: Path | None = None
    precision: float | None = None
    confidence: float | None = None
    iou: float = 0.6
    report: Path | None = None
    calibration: Path | None = None
    licence: str = ""
    about: Path | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """What was made. `comparisons`: of torch, the backends and the 8-bit sibling."""

    folder: Path
    manifest: Manifest
    comparisons: tuple[Comparison, ...]

    @property
    def holds(self) -> bool:
        """Every backend finds what torch finds."""
        return all(comparison.holds for comparison in self.comparisons)


def package_model(request: PackageRequest, policy: ImagePolicy, watch: Watch = lambda _: None) -> Package:
    """Write `NAME.onnx`, `NAME.md` and `manifest.json` into `request.out`, the manifest last: it lists what belongs to the package.

    The same request gives the same model, byte by byte. Raises ConfigurationError for what cannot be read, is about another model, or
    where no score reaches the precision.
    """
    source = request.source / BEST if request.source.is_dir() else request.source
    checkpoint, about, report = read_checkpoint(source), _read_text(request.about), _read_report(request.report)
    _make_folder(request.out)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=request.out) as scratch:
        model = Path(scratch) / f"{request.name}.onnx"
        watch("exporting")
        write_onnx(checkpoint.build(), model, _metadata(request, checkpoint))
        threshold = _choose_threshold(request, model, policy, watch)
        if threshold:
            set_metadata(model, {"confidence": f"{threshold.confidence:g}"})
        digest = read_model(ModelSpec(path=str(model))).digest
        _check_report(report, digest, request.report)
        watch("comparing backends")
        comparisons = [*compare_backends(checkpoint, model, _pictures(request, policy))]
        siblings = [*_quantise(request, model, policy, watch, comparisons)]
        manifest = Manifest(
            name=request.name,
            version=request.version or digest.removeprefix("sha256:")[:12],
            digest=digest,
            labels=checkpoint.names,
            image_size=checkpoint.image_size,
            stride=STRIDE,
            parameters=sum(parameter.numel() for parameter in checkpoint.build().parameters()),
            threshold=threshold,
            metrics=summarise(report) if report else None,
            parity=tuple(comparisons),
            licence=request.licence,
            lineage=_lineage(source, checkpoint),
        )
        card = model.with_suffix(".md")
        card.write_text(write_card(manifest, model.stat().st_size, about), encoding="utf-8")
        files = [model, card, *siblings]
        listed = manifest.to_json([describe_file(file) for file in files])
        place = Path(scratch) / MANIFEST
        place.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
        for file in (*files, place):
            file.replace(request.out / file.name)
    return Package(request.out, manifest, tuple(comparisons))


def _metadata(request: PackageRequest, checkpoint: Checkpoint) -> dict[str, str]:
    size = checkpoint.image_size
    said = {
        "names": str(dict(enumerate(checkpoint.names))),
        "stride": str(STRIDE),
        "imgsz": f"[{size}, {size}]",
        "iou": f"{request.iou:g}",
        "licence": request.licence,
        "data_digest": checkpoint.data_digest,
    }
    return {name: value for name, value in said.items() if value}


def _choose_threshold(request: PackageRequest, model: Path, policy: ImagePolicy, watch: Watch) -> Threshold | None:
    if request.confidence is not None or request.data is None:
        return None if request.confidence is None else Threshold(request.confidence)
    watch(f"choosing the threshold on {request.data}")
    annotations = _annotations(request.data)
    truth = read_truth(annotations)
    # In f32, which is the same on every machine.
    detector = open_detector(ModelSpec(path=str(model), precision="f32"))
    try:
        classes = match_classes(detector.model.labels, truth.categories)
        found = predict(detector, find_images(truth, annotations), policy, _EVERYTHING)
    finally:
        detector.close()
    matches = evaluate(truth, found.image_ids, found.boxes, classes).matches
    point = _choose_point(matches, request)
    # Downwards: the engine keeps what scores more.
    confidence = math.floor(point.confidence * 1000) / 1000
    return Threshold(confidence, request.precision, point.precision, point.recall, len(found.image_ids), truth.digest)


def _choose_point(matches: Matches, request: PackageRequest) -> OperatingPoint:
    if request.precision is not None:
        point = confidence_for_precision(matches, request.precision)
        if point is None:
            raise ConfigurationError(
                f"at no score {request.precision:.0%} of what is detected in {request.data} is right: a lower --threshold-precision may do"
            )
        return point
    confidence = confidence_for_f1(matches)
    precision, recall = matches.precision_and_recall(confidence)
    if not precision or not recall:
        raise ConfigurationError(
            f"nothing that is detected in {request.data} is right: there is no threshold to choose"
        )
    return OperatingPoint(confidence, precision, recall)


def _pictures(request: PackageRequest, policy: ImagePolicy) -> dict[str, Image]:
    """Some of the data set's, for boxes to compare."""
    if request.data is None:
        return {}
    annotations = _annotations(request.data)
    files = list(islice(find_images(read_truth(annotations), annotations).values(), _COMPARED))
    return cut_to_shapes({path.name: image for path, image in load_files(files, policy, _keep).kept.items()})


def _keep(_: Path, image: Image) -> Image:
    return image


def _quantise(
    request: PackageRequest, model: Path, policy: ImagePolicy, watch: Watch, comparisons: list[Comparison]
) -> Iterator[Path]:
    if request.calibration is None:
        return
    watch("quantising")
    wanted = ExportRequest(source=model, target="openvino", precision="int8", calibration=request.calibration)
    made = export_model(wanted, policy)
    comparisons.append(made.comparison)
    yield from (made.path, made.path.with_suffix(".bin"), report_path(made.path))


def _lineage(source: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "data": checkpoint.data_digest,
        "code": checkpoint.code_version,
        "checkpoint": f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}",
        "step": checkpoint.step,
        "validation": dict(checkpoint.scores),
        "recipe": dict(checkpoint.recipe),
    }


def _annotations(data: Path) -> Path:
    return data / ANNOTATIONS if data.is_dir() else data


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from error


def _read_text(path: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8") if path else ""
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error


def _read_report(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        report: Mapping[str, Any] = json.loads(path.read_bytes())
        summarise(report)
    except OSError as error:
        raise ConfigurationError(f"cannot read the report {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no report of `sightstream evaluate --json`") from error
    return report


def _check_report(report: Mapping[str, Any] | None, digest: str, path: Path | None) -> None:
    if report is not None and report["model"]["digest"] != digest:
        raise ConfigurationError(
            f"{path} is about {report['model']['digest']}, and the packaged model is {digest}: package without --report, evaluate that, "
            "and package again"
        )
