"""ONNX models with a YOLO head on ONNX Runtime: the CPU's own kernels, or CUDA where `onnxruntime-gpu` is what is installed."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Letterbox, Thresholds, join, read_yolo
from detectors.buckets import Batcher, Buckets
from detectors.cores import usable_cores
from detectors.processor import processor_name
from detectors.spec import ModelFile, ModelSpec, read_model
from detectors.yolo_onnx import Head, Signature, read_head
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters

log = logging.getLogger(__name__)

# Measured with YOLOv8n: two calls at once, of two images at most, keep the cores busiest; larger batches spill the cache, and a fixed few
# sizes are all that the arena ever has to hold.
_CPU_BUCKETS, _CUDA_BUCKETS = Buckets((1, 2)), Buckets((1, 2, 4, 8, 16, 32))
CONCURRENCY = 2
_TYPES: dict[str, type[np.float32 | np.float16]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PRECISIONS = {np.float32: "f32", np.float16: "f16"}
# In the names of operators that only a network has that computes in 8 bits, as they stand in the file.
_QUANTISED = (b"QuantizeLinear", b"QLinearConv", b"ConvInteger")
_NO_MEMORY = ("out of memory", "failed to allocate memory", "bad allocation", "bad_alloc")

_Provider = tuple[str, dict[str, str]]
_CPU: _Provider = ("CPUExecutionProvider", {})


def load(spec: ModelSpec) -> "OnnxRuntimeDetector":
    """Read and warm a model; `f32` and `auto` take it in the precision that it has.

    Raises ConfigurationError where the file or the device is not fit for it, or the file is in another precision than is asked for.
    """
    detector = OnnxRuntimeDetector(spec, read_model(spec))
    own = detector.model.precision
    if spec.precision not in {"auto", "f32", own}:
        raise ConfigurationError(
            f"onnxruntime runs {spec.path} in its own precision, {own}, not in {spec.precision}; choose auto, or the backend openvino, "
            "or a file in that precision: sightstream models export --half makes one in f16"
        )
    detector.warm()
    return detector


def precisions(spec: ModelSpec) -> tuple[str, ...]:
    """What `auto` may choose from: the model as it is. Raises ConfigurationError where its file is not there."""
    read_model(spec)
    return ("f32",)


def place(spec: ModelSpec) -> str:
    """The library, its version and the device: what a measurement holds for."""
    provider, _ = _choose_provider(spec.device)
    return f"onnxruntime {ort.__version__} on {provider[0]} {provider[1]} {processor_name()}"


class OnnxRuntimeDetector:
    """Runs images of one canvas size as one batch of a fixed size; each image's boxes are what it would get alone, but for rounding."""

    def __init__(self, spec: ModelSpec, file: ModelFile) -> None:
        self._session, provider = _place_session(file, spec.device)
        self._head = _read_head(self._session, file, spec)
        self._spec = spec.taking(self._head.advice)
        images, output = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self._names = (images.name, output.name)
        self._type: type[np.float32 | np.float16] = _TYPES[images.type]
        on_cpu = provider == _CPU
        buckets = _CPU_BUCKETS if on_cpu else _CUDA_BUCKETS
        self._batcher = Batcher(Buckets((self._head.batch,)) if self._head.batch else buckets, _is_exhausted)
        self._model = ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=self._head.labels,
            backend=f"onnxruntime {ort.__version__}",
            precision="int8" if _is_quantised(file) else self._head.precision or _PRECISIONS[self._type],
            device=processor_name() if on_cpu else f"cuda:{provider[1]['device_id']}",
            canvas=self._head.canvas,
            advice=self._head.advice,
        )

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two: while one call letterboxes, the other computes."""
        return CONCURRENCY

    @property
    def max_batch(self) -> int:
        """Enough for images of several shapes to share batches, and few enough that results leave early."""
        return max(16, self._batcher.bound)

    def warm(self) -> None:
        """Run every batch size once, so that the first image of a run is not slower than the rest and memory is taken now."""
        width, height = self._head.canvas
        grey = Image(np.full((height, width, 3), 114, np.uint8))
        for size in sorted({1, self._batcher.bound}):
            self.detect([grey] * size, [DetectParameters()] * size)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        boxes = [Letterbox.fit((image.width, image.height), self._head.canvas, self._head.stride) for image in images]
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, letterbox in enumerate(boxes):
            groups[letterbox.canvas].append(row)
        found: dict[int, Found] = {}

        def infer(rows: Sequence[int], size: int) -> list[Found]:
            predictions = self._infer([images[row] for row in rows], [boxes[row] for row in rows], size)
            wanted = [Thresholds.of(parameters[row], self._spec) for row in rows]
            return [
                read_yolo(prediction, thresholds, boxes[row])
                for row, thresholds, prediction in zip(rows, wanted, predictions, strict=False)
            ]

        for rows in groups.values():
            found |= zip(rows, self._batcher.run(rows, infer), strict=True)
        return join([found[row] for row in range(len(images))])

    def close(self) -> None:
        """Let go of the session, and of the device's memory."""
        del self._session

    def _infer(self, images: Sequence[Image], letterboxes: Sequence[Letterbox], size: int) -> NDArray[np.float32]:
        """Raw output of the head, (size, 4 + classes, anchors); rows beyond the images are those of empty canvases."""
        width, height = letterboxes[0].canvas
        canvases = np.zeros((size, height, width, 3), np.uint8)
        for canvas, image, letterbox in zip(canvases, images, letterboxes, strict=False):
            letterbox.apply(image.pixels, out=canvas)
        planes = np.empty((size, 3, height, width), self._type)
        np.multiply(canvases.transpose(0, 3, 1, 2), self._type(1 / 255), out=planes)
        name, output = self._names
        (predictions,) = self._session.run([output], {name: planes})
        return np.asarray(predictions, np.float32)


def _place_session(file: ModelFile, device: str) -> tuple[Any, _Provider]:
    """A session, and where it runs: the library goes on without a provider that does not start, so that is looked up."""
    provider, why = _choose_provider(device)
    session = _open_session(file, provider)
    if provider[0] not in session.get_providers():
        if device != "auto":
            raise ConfigurationError(
                f"onnxruntime cannot start {provider[0]} for {device}; are the driver, CUDA and cuDNN those that it is built for?"
            )
        provider, why = _CPU, f"{provider[0]} does not start"
    if device == "auto":
        log.info("device auto: %s, as %s", provider[0], why)
    return session, provider


def _open_session(file: ModelFile, provider: _Provider) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = _cores()
    # Threads that spin for work take the cores from the decoders and cost a third more of the processor's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(file.content, options, providers=[provider])
    except Exception as error:  # the library's exceptions have no common base but this
        raise ConfigurationError(f"{file.path} is not an ONNX model that ONNX Runtime runs: {error}") from error


def _read_head(session: Any, file: ModelFile, spec: ModelSpec) -> Head:
    images, output = session.get_inputs()[0], session.get_outputs()[0]
    if images.type not in _TYPES:
        raise ConfigurationError(f"{file.path} takes {images.type}; expected float or float16")
    signature = Signature(_shape(images), _shape(output), session.get_modelmeta().custom_metadata_map)
    return read_head(signature, file.path, spec)


def _shape(port: Any) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) else None for side in port.shape)


def _choose_provider(wanted: str) -> tuple[_Provider, str]:
    """The execution provider and its options, and why it was chosen. Raises ConfigurationError if it is not there."""
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    name, _, index = wanted.lower().partition(":")
    if name not in {"auto", "cpu", "cuda"} or not (index or "0").isdigit():
        raise ConfigurationError(f"onnxruntime has no device {wanted}; choose auto, cpu or cuda:0")
    if name == "cuda" and not has_cuda:
        raise ConfigurationError(
            "this onnxruntime is built without CUDA: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        )
    if name == "cpu" or not has_cuda:
        return _CPU, "onnxruntime is built without CUDA"
    # Grown by what is asked for, and not to the next power of two, which on a shared device is another's memory.
    options = {"device_id": index or "0", "arena_extend_strategy": "kSameAsRequested"}
    return ("CUDAExecutionProvider", options), "onnxruntime is built with CUDA"


def _cores() -> int:
    """Physical cores that this process may use: a second thread of a core adds nothing to kernels that fill it."""
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        physical = len({Path(siblings.format(cpu)).read_text("ascii") for cpu in os.sched_getaffinity(0)})
    except OSError:
        return usable_cores()
    return min(physical, usable_cores())


def _is_quantised(file: ModelFile) -> bool:
    return any(name in file.content for name in _QUANTISED)


def _is_exhausted(error: Exception) -> bool:
    return any(sign in str(error).lower() for sign in _NO_MEMORY)
