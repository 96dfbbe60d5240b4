"""A model in another format or precision, beside a report that says whether it still finds the same."""

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.base import Image
from detectors.choice import is_installed
from detectors.export_checkpoint import export_checkpoint
from detectors.export_onnx import write_half
from detectors.golden import draw_golden_images
from detectors.image_files import find_images, load_files
from detectors.parity import Comparison
from detectors.parity_report import ParityReport, report_path, write_parity_report
from detectors.parity_run import compare_models
from detectors.policy import ImagePolicy
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError

# Ranges of activations hardly change beyond this many images; comparing so many gives hundreds of boxes.
_CALIBRATED, _COMPARED = 128, 32
# Of the calibration images, one in so many is only compared on.
_HELD_OUT = 5
_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to make of `source`. `calibration`: a directory of images like those that the model is for, which int8 needs.

    `out` defaults to `NAME.onnx`, `NAME.xml` or `NAME.engine` beside the source, with `.fp16` or `.int8` before the suffix. `force`
    replaces what is there.
    """

    source: Path
    target: Literal["onnx", "openvino", "tensorrt"]
    precision: Literal["f32", "f16", "int8"] = "f32"
    calibration: Path | None = None
    out: Path | None = None
    force: bool = False

    @property
    def place(self) -> Path:
        """The file to write."""
        mark = {"f32": "", "f16": ".fp16", "int8": ".int8"}[self.precision]
        return self.out or self.source.with_name(f"{self.source.stem}{mark}{_SUFFIXES[self.target]}")


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """`canvases`: uint8 (height, width, 3) each, to quantise by; `compared`: images to compare on, by name."""

    canvases: list[NDArray[np.uint8]]
    compared: Mapping[str, Image]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """`path`: the model; its report lies beside it."""

    path: Path
    report: ParityReport
    comparison: Comparison


def export_model(request: ExportRequest, policy: ImagePolicy) -> Exported:
    """Export, compare with the source, and put model and report in their place, each whole or not at all.

    A model whose report does not hold is kept: whoever reads the report knows. Raises ConfigurationError for what cannot be exported, a
    missing extra, or a file that is there already.
    """
    _check(request)
    place = request.place
    with tempfile.TemporaryDirectory(prefix=".export-", dir=place.parent) as scratch:
        made = Path(scratch) / place.name
        network = _as_network(request.source, Path(scratch))
        samples = _choose_samples(request, network, policy)
        _convert(request, network, made, samples.canvases)
        comparison = _compare(request.source, made, request.precision, samples.compared)
        report = _report(request.source, made, comparison, samples.notes)
        write_parity_report(made, report)
        _put(made, place)
    return Exported(place, report, comparison)


def _check(request: ExportRequest) -> None:
    source, place = request.source, request.place
    if source.suffix.lower() not in {".pt", ".onnx", ".xml"}:
        raise ConfigurationError(f"{source} cannot be exported: .pt, .onnx and .xml can")
    if request.target != "openvino" and (request.precision == "int8" or source.suffix.lower() == ".xml"):
        what = "int8 is made" if request.precision == "int8" else ".xml is exported"
        raise ConfigurationError(f"{what} for OpenVINO only: --to openvino")
    if request.precision == "int8" and request.calibration is None:
        raise ConfigurationError("int8 needs images like those that the model is for: --calibration DIR")
    if request.target == "tensorrt" and not is_installed("tensorrt"):
        raise ConfigurationError("TensorRT is not installed: pip install 'sightstream[tensorrt]'")
    if place.suffix != _SUFFIXES[request.target]:
        raise ConfigurationError(f"{place} should end in {_SUFFIXES[request.target]} for {request.target}")
    if place.absolute() == source.absolute() or (place.suffix == source.suffix and request.precision == "f32"):
        raise ConfigurationError(f"{source} is that already")
    if not place.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write to {place.parent}: there is no such directory")
    there = [path for path in _files_of(place) if path.exists()]
    if there and not request.force:
        raise ConfigurationError(f"{there[-1]} is there already; --force replaces it")
    read_model(ModelSpec(path=str(source)))


def _as_network(source: Path, scratch: Path) -> Path:
    """The source as ONNX or IR, which all the rest starts from."""
    return export_checkpoint(source, scratch) if source.suffix.lower() == ".pt" else source


def _choose_samples(request: ExportRequest, network: Path, policy: ImagePolicy) -> _Samples:
    if request.precision != "int8" or request.calibration is None:
        return _Samples([], draw_golden_images(), ("compared on drawn images",))
    paths = find_images(request.calibration, _CALIBRATED + _COMPARED)
    held_out = paths[::_HELD_OUT] if len(paths) >= _HELD_OUT else []
    ir = importlib.import_module("detectors.export_openvino")
    head = ir.read_canvas(network)
    canvases: list[NDArray[np.uint8]] = []
    compared: dict[str, Image] = {}

    def keep(path: Path, image: Image) -> None:
        if path not in held_out:
            canvases.append(ir.letterbox(image, head))
        if path in held_out or not held_out:
            compared[str(path)] = image

    missing = load_files(paths, policy, keep).missing
    if not canvases:
        raise ConfigurationError(f"no image of {request.calibration} can be read")
    note = f"calibrated on {len(canvases)} images of {request.calibration.name}, compared on {len(compared)} others"
    if not held_out:
        note = f"calibrated and compared on the same {len(compared)} images: too few to say how it does on others"
    return _Samples(canvases, compared, (note, *(f"not read: {path} ({why})" for path, why in missing.items())))


def _convert(request: ExportRequest, network: Path, made: Path, canvases: list[NDArray[np.uint8]]) -> None:
    # Each library is imported where it is used: the other ways do not need it.
    half = request.precision == "f16"
    if request.target == "tensorrt":
        importlib.import_module("detectors.tensorrt").write_engine(network, made, half=half)
    elif request.target == "openvino":
        ir = importlib.import_module("detectors.export_openvino")
        if request.precision == "int8":
            ir.write_int8(network, made, canvases)
        else:
            ir.write_ir(network, made, half=half)
    elif half:
        write_half(network, made)
    elif network != made:
        network.replace(made)


def _compare(source: Path, made: Path, precision: str, images: Mapping[str, Image]) -> Comparison:
    """In the precision that a worker would run it in; the source in f32, which is the same everywhere."""
    # An engine has one precision. Of other files float16 is how they are kept; what computes decides for itself.
    runs = {".engine": "auto"}.get(made.suffix, "int8" if precision == "int8" else "f32")
    reference = ModelSpec(path=str(source), precision="f32")
    return compare_models(reference, ModelSpec(path=str(made), precision=runs), images)


def _report(source: Path, made: Path, comparison: Comparison, notes: tuple[str, ...]) -> ParityReport:
    tolerance = comparison.tolerance
    return ParityReport(
        source=read_model(ModelSpec(path=str(source))).digest,
        digest=read_model(ModelSpec(path=str(made))).digest,
        holds=comparison.holds,
        images=comparison.images,
        compared=comparison.compared,
        defects=len(comparison.defects),
        worst_iou=round(comparison.worst_iou, 6),
        worst_score_drift=round(comparison.worst_score_drift, 6),
        iou=tolerance.iou,
        score=tolerance.score,
        share=tolerance.share,
        notes=notes,
    )


def _files_of(model: Path) -> list[Path]:
    """A model and what belongs to it; the file that readers look for first comes last."""
    weights = [model.with_suffix(".bin")] if model.suffix == ".xml" else []
    return [*weights, report_path(model), model]


def _put(made: Path, place: Path) -> None:
    for fresh, final in zip(_files_of(made), _files_of(place), strict=True):
        fresh.replace(final)
