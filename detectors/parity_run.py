"""The parity sentinel: the same images through several backends, and through each one by one and together."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from detectors.base import Boxes, Detector, Image, ModelInfo
from detectors.choice import find_backends
from detectors.parity import Asked, Comparison, Tolerance, compare
from detectors.registry import open_detector
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters

# How far a precision may be from f32. f32 itself: rounding in another order. bf16 has eight bits of significand: a box in twenty may be
# further off. int8: a box in five; what keeps the accuracy of YOLOv8n (mAP within 0.015) has one in eight, and with its decoding
# part in 8 bits, too (mAP down by 0.03), it is one in three.
_TOLERANCES = {
    "f32": Tolerance(iou=0.99, score=0.005),
    "f16": Tolerance(iou=0.97, score=0.02, share=0.01),
    "bf16": Tolerance(iou=0.9, score=0.05, share=0.05),
    "int8": Tolerance(iou=0.85, score=0.1, share=0.2),
}
# Low, so that there are boxes to compare even where the model is sure of nothing.
_ASKED = Asked(confidence=0.05, iou=0.7, limit=300)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What one model found: `alone` image by image, `together` in batches of `batch`."""

    model: ModelInfo
    alone: Boxes
    together: Boxes
    batch: int


def find_subjects(spec: ModelSpec) -> list[ModelSpec]:
    """`spec` once for each backend that reads its file, drives its device and is here, or for the one that it names.

    Precision `auto` is every one that the backend offers, f32 first. Raises ConfigurationError where the file cannot be read.
    """
    here = find_backends(spec) if spec.backend == "auto" else [spec.backend]
    if not here:
        return [spec]
    read_model(spec)
    subjects = [replace(spec, backend=name) for name in here]
    return [replace(subject, precision=name) for subject in subjects for name in _precisions_of(subject)]


def _precisions_of(spec: ModelSpec) -> Sequence[str]:
    if spec.precision != "auto" or spec.backend not in find_backends(spec):
        return (spec.precision,)
    backend = importlib.import_module(f"detectors.{spec.backend}")
    try:
        offered: Sequence[str] = backend.precisions(spec) if hasattr(backend, "precisions") else ("auto",)
    except ConfigurationError:
        # Opening it says why, and whoever opens it says what then.
        return ("f32",)
    return offered


def _run(
    spec: ModelSpec, images: Sequence[Image], batch: int, opener: Callable[[ModelSpec], Detector] = open_detector
) -> _Run:
    """Open the model, detect one by one and then in batches, and close it. Raises what these raise."""
    detector = opener(spec)
    try:
        size = min(batch, detector.max_batch)
        alone = _detect(detector, images, 1, _ASKED)
        together = alone if size == 1 else _detect(detector, images, size, _ASKED)
        return _Run(detector.model, alone, together, size)
    finally:
        detector.close()


def check_parity(
    specs: Sequence[ModelSpec],
    images: Mapping[str, Image],
    batch: int = 8,
    tolerance: Tolerance | None = None,
    leave_out: Callable[[str, str], object] = lambda _subject, _why: None,
) -> Iterator[Comparison]:
    """Compare each spec with the first one by one, and each with itself in batches; yields what is done as it is done.

    `tolerance`: None takes that of the less precise of the two. `leave_out` is told of a spec that does not open, and why; the others
    go on. Raises ConfigurationError where no spec of a file opens, at the end, or where the models' classes differ.
    """
    names, pictures = list(images), list(images.values())
    reference: _Run | None = None
    refused: dict[str, ConfigurationError] = {}
    opened: set[str] = set()
    for spec in specs:
        try:
            run = _run(spec, pictures, batch)
        except ConfigurationError as error:
            refused.setdefault(spec.path, error)
            leave_out(f"{spec.file.name} on {spec.backend}, {spec.precision}", str(error))
            continue
        opened.add(spec.path)
        title = _title(spec, run.model)
        if reference is not None:
            allowed = tolerance or tolerance_for(spec, run.model, reference.model)
            yield _compare_runs(title, names, reference, run, allowed)
        reference = reference or run
        allowed = tolerance or tolerance_for(spec, run.model)
        yield compare(f"{title}, batch {run.batch} against 1", names, (run.alone, run.together), _ASKED, allowed)
    for path, reason in refused.items():
        if path not in opened:
            raise reason


def compare_models(
    reference: ModelSpec,
    spec: ModelSpec,
    images: Mapping[str, Image],
    tolerance: Tolerance | None = None,
    opener: Callable[[ModelSpec], Detector] = open_detector,
) -> Comparison:
    """Compare one model with another, image by image; `tolerance` as for `check_parity`, and `opener` opens both.

    Raises ConfigurationError where their classes differ.
    """
    pictures = list(images.values())
    first, second = _run(reference, pictures, 1, opener), _run(spec, pictures, 1, opener)
    allowed = tolerance or tolerance_for(spec, first.model, second.model)
    return _compare_runs(_title(spec, second.model), list(images), first, second, allowed)


def _title(spec: ModelSpec, model: ModelInfo) -> str:
    return f"{spec.file.name} on {model.backend}, {model.precision}"


def _compare_runs(title: str, names: Sequence[str], reference: _Run, run: _Run, tolerance: Tolerance) -> Comparison:
    """The boxes that two models found image by image. Raises ConfigurationError where their classes differ."""
    if reference.model.labels != run.model.labels:
        raise ConfigurationError(f"{title} has other classes than {reference.model.name}: they cannot be compared")
    return compare(title, names, (reference.alone, run.alone), _ASKED, tolerance)


def tolerance_for(spec: ModelSpec, *models: ModelInfo) -> Tolerance:
    """How far apart models may be that run in these precisions, or whose file says so in its name: as far as the least precise."""
    precisions = {model.precision for model in models}
    for mark, precision in ((".fp16.", "f16"), (".int8.", "int8")):
        if mark in spec.file.name:
            precisions.add(precision)
    # What another library may call its own is taken for the widest of the floats.
    known = [precision if precision in _TOLERANCES else "bf16" for precision in precisions]
    return _TOLERANCES[max(known, key=list(_TOLERANCES).index)]


def _detect(detector: Detector, images: Sequence[Image], size: int, asked: Asked) -> Boxes:
    wanted = DetectParameters(confidence=asked.confidence, iou=asked.iou, max_detections=asked.limit)
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    return Boxes.concatenate([detector.detect(chunk, [wanted] * len(chunk)) for chunk in chunks])
