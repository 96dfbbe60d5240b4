"""ONNX models with a YOLO head, on what OpenVINO runs on. One image a request: results never depend on a batch's company."""

import ast
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Letterbox, Thresholds, join, read_yolo
from detectors.spec import ModelFile, ModelSpec, read_labels_file, read_model
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters

log = logging.getLogger(__name__)

# Two calls at once, so that the end of one batch, when streams run dry, is the middle of another.
CONCURRENCY = 2
# Requests of a call that wait behind those that run, so that a stream never waits for the letterbox.
SPARE_REQUESTS = 2
_PRECISIONS = {"auto": None, "f32": ov.Type.f32, "f16": ov.Type.f16, "bf16": ov.Type.bf16}


def load(spec: ModelSpec) -> "OpenVinoDetector":
    """Read, compile and warm an ONNX model. Raises ConfigurationError where the file or the device is not fit for it."""
    file = read_model(spec)
    detector = OpenVinoDetector(spec, file)
    detector.warm()
    return detector


@dataclass(frozen=True, slots=True)
class _Head:
    """What the exported file says of the model. `canvas`: (width, height); `stride`: None where the input's size is fixed."""

    labels: tuple[str, ...]
    canvas: tuple[int, int]
    stride: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """One image in inference; keeps the pixels alive that the device reads."""

    request: Any
    pixels: NDArray[np.uint8]
    letterbox: Letterbox
    thresholds: Thresholds

    def land(self) -> Found:
        """Wait for the inference and read its boxes, before the request is used again."""
        self.request.wait()
        prediction = self.request.get_output_tensor(0).data[0]
        return read_yolo(prediction, self.thresholds, self.letterbox)


class OpenVinoDetector:
    """Keeps every stream of the device busy with requests of one image; letterboxes the next ones meanwhile."""

    def __init__(self, spec: ModelSpec, file: ModelFile) -> None:
        core = ov.Core()
        network = _parse(core, file)
        self._spec = spec
        self._head = _read_head(network, file, spec)
        device = _choose_device(core, spec.device)
        compiled = _compile(core, _with_preprocessing(network), device, spec.precision)
        streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        self._lanes: SimpleQueue[list[Any]] = SimpleQueue()
        for _ in range(CONCURRENCY):
            self._lanes.put([compiled.create_infer_request() for _ in range(streams + SPARE_REQUESTS)])
        self._model = ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=self._head.labels,
            backend=f"openvino {ov.__version__.split('-')[0]}",
            precision=precision,
            device=str(core.get_property(device, "FULL_DEVICE_NAME")),
            canvas=self._head.canvas,
        )
        log.info("compiled %s for %s", file.path.name, device, extra={"streams": streams, "precision": precision})

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two: one call's tail hides behind the other."""
        return CONCURRENCY

    @property
    def max_batch(self) -> int:
        """Not the device's bound, as images run one by one, but what keeps a call short: results leave when their batch is done."""
        return 16

    def warm(self) -> None:
        """Run every request once, so that the first image of a run is not slower than the rest."""
        width, height = self._head.canvas
        grey = Image(np.full((height, width, 3), 114, np.uint8))
        for _ in range(CONCURRENCY):
            lane = self._lanes.get()
            self._run(lane, [grey] * len(lane), [DetectParameters()] * len(lane))
            self._lanes.put(lane)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        lane = self._lanes.get()
        try:
            return join(self._run(lane, images, parameters))
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Let go of the compiled model."""
        for _ in range(CONCURRENCY):
            self._lanes.get()

    def _run(self, lane: list[Any], images: Sequence[Image], parameters: Sequence[DetectParameters]) -> list[Found]:
        flights: deque[_Flight] = deque()
        found: list[Found] = []
        try:
            for index, (image, wanted) in enumerate(zip(images, parameters, strict=True)):
                letterbox = Letterbox.fit((image.width, image.height), self._head.canvas, self._head.stride)
                pixels = letterbox.apply(image.pixels)
                if len(flights) == len(lane):
                    found.append(flights.popleft().land())
                request = lane[index % len(lane)]
                request.set_input_tensor(ov.Tensor(pixels[np.newaxis], shared_memory=True))
                request.start_async()
                flights.append(_Flight(request, pixels, letterbox, Thresholds.of(wanted, self._spec)))
            while flights:
                found.append(flights.popleft().land())
        finally:
            for flight in flights:
                with suppress(RuntimeError):
                    flight.request.wait()
        return found


def _parse(core: Any, file: ModelFile) -> Any:
    try:
        return core.read_model(file.content)
    except RuntimeError as error:
        raise ConfigurationError(
            f"{file.path} is not an ONNX model that OpenVINO reads: {_first_line(error)}"
        ) from error


def _read_head(network: Any, file: ModelFile, spec: ModelSpec) -> _Head:
    metadata = _read_metadata(network)
    labels = _parse_labels(metadata.get("names")) or read_labels_file(file.path)
    if not labels:
        hint = f"put one label a line into {file.path.with_suffix('.labels.txt').name} beside it"
        raise ConfigurationError(f"{file.path} does not say its labels (ONNX metadata `names`); {hint}")
    _check_shapes(network, labels, file)
    shape = network.input(0).partial_shape
    if shape[2].is_static and shape[3].is_static:
        return _Head(labels, (shape[3].get_length(), shape[2].get_length()), None)
    height, width = _parse_sizes(metadata.get("imgsz")) if spec.image_size is None else (spec.image_size,) * 2
    return _Head(labels, (width, height), int(metadata.get("stride", "32")))


def _check_shapes(network: Any, labels: tuple[str, ...], file: ModelFile) -> None:
    images, output = network.input(0).partial_shape, network.output(0).partial_shape
    one_at_a_time = len(images) == 4 and (images[0].is_dynamic or images[0].get_length() == 1)
    if not one_at_a_time or images[1].is_dynamic or images[1].get_length() != 3:
        raise ConfigurationError(f"{file.path} takes {images}; expected images as [1 or ?, 3, height, width]")
    rows = 4 + len(labels)
    if len(output) != 3 or output[1].is_dynamic or output[1].get_length() != rows:
        raise ConfigurationError(
            f"{file.path} gives {output}; expected a YOLOv8 head, [?, {rows}, anchors], for its {len(labels)} labels"
        )


def _read_metadata(network: Any) -> Mapping[str, str]:
    """The `metadata_props` of an ONNX file, which OpenVINO's reader keeps under `framework`."""
    if not network.has_rt_info(["framework"]):
        return {}
    return {str(key): str(value) for key, value in network.get_rt_info(["framework"]).value.items()}


def _parse_labels(text: str | None) -> tuple[str, ...] | None:
    """Labels from Ultralytics' `names`: the text of a dict from class id to label."""
    with suppress(ValueError, SyntaxError, TypeError, AttributeError, KeyError):
        names = ast.literal_eval(text or "")
        return tuple(str(names[class_id]) for class_id in range(len(names)))
    return None


def _parse_sizes(text: str | None) -> tuple[int, int]:
    """(height, width) from Ultralytics' `imgsz`, a list in text; 640 square where there is none."""
    with suppress(ValueError, SyntaxError, TypeError):
        height, width = ast.literal_eval(text or "")
        return int(height), int(width)
    return 640, 640


def _with_preprocessing(network: Any) -> Any:
    """Take the canvas as it lies in memory, RGB bytes; the graph turns it into planes of 0..1, off Python's lock."""
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    return steps.build()


def _choose_device(core: Any, wanted: str) -> str:
    available = list(core.available_devices)
    if wanted != "auto":
        if wanted.split(".", maxsplit=1)[0].upper() not in {name.split(".")[0] for name in available}:
            raise ConfigurationError(f"OpenVINO has no device {wanted} here; it has {', '.join(available)}")
        return wanted.upper()
    discrete = [name for name in available if name.startswith("GPU") and _is_discrete(core, name)]
    chosen = discrete[0] if discrete else "CPU"
    why = "a discrete GPU is there" if discrete else f"no discrete GPU among {', '.join(available)}"
    log.info("device auto: %s, as %s", chosen, why)
    return chosen


def _is_discrete(core: Any, device: str) -> bool:
    return "discrete" in str(core.get_property(device, "DEVICE_TYPE")).lower()


def _compile(core: Any, network: Any, device: str, precision: str) -> Any:
    if precision not in _PRECISIONS:
        raise ConfigurationError(f"precision {precision} is unknown; choose one of {', '.join(_PRECISIONS)}")
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
    if _PRECISIONS[precision] is not None:
        settings["INFERENCE_PRECISION_HINT"] = _PRECISIONS[precision]
    try:
        return core.compile_model(network, device, settings)
    except RuntimeError as error:
        raise ConfigurationError(f"OpenVINO cannot compile the model for {device}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
