"""Ultralytics checkpoints (`.pt`) on torch: the optional extra. Ultralytics loads the network; the rest is ours.

Ultralytics is AGPL-3.0 and an option that the user turns on. A checkpoint is a pickle; it is loaded with Ultralytics' allow-list
(`weights_only`) switched on, yet only checkpoints of trusted origin belong here: pin them by digest.
"""

import importlib
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Letterbox, Thresholds, join, read_yolo
from detectors.spec import ModelFile, ModelSpec, read_model
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters

log = logging.getLogger(__name__)

# Read by Ultralytics when it is imported: no installer, no network, no code from checkpoints.
_CONFINED = {
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "ULTRALYTICS_SAFE_LOAD": "true",
    "YOLO_VERBOSE": "false",
}


def load(spec: ModelSpec) -> "UltralyticsDetector":
    """Load and warm a checkpoint. Raises ConfigurationError without the extra, or if the file is not a detection checkpoint."""
    file = read_model(spec)
    detector = UltralyticsDetector(spec, file, import_confined())
    detector.warm()
    return detector


def import_confined() -> Any:
    """Ultralytics, imported so that it installs nothing, fetches nothing and leaves `PIL.Image.open` as it was."""
    os.environ.update(_CONFINED)
    open_image = PIL.Image.open
    try:
        return importlib.import_module("ultralytics")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a .pt model needs Ultralytics (AGPL-3.0), and {error.name} is not installed: pip install 'sightstream[ultralytics]'"
        ) from error
    finally:
        PIL.Image.open = open_image


class UltralyticsDetector:
    """Runs images of one canvas size as one batch; each image's boxes are what it would get alone, but for rounding."""

    def __init__(self, spec: ModelSpec, file: ModelFile, ultralytics: Any) -> None:
        self._torch = importlib.import_module("torch")
        self._spec = spec
        self._device, device_name = _choose_device(self._torch, spec.device)
        if spec.precision not in {"f32", "auto"}:
            raise ConfigurationError(f"precision {spec.precision} is not offered for .pt models; choose f32 or auto")
        self._network = _load_network(ultralytics, file).to(self._device)
        self._stride = int(self._network.stride.max())
        size = spec.image_size or 640
        self._canvas = (size, size)
        # The head keeps its anchors from call to call, so two calls at once would mix them up.
        self._lock = threading.Lock()
        self._model = ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=tuple(str(self._network.names[class_id]) for class_id in range(len(self._network.names))),
            backend=f"ultralytics {ultralytics.__version__}, torch {self._torch.__version__}",
            precision="f32",
            device=device_name,
        )

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._model

    @property
    def concurrency(self) -> int:
        """One: calls take turns."""
        return 1

    @property
    def max_batch(self) -> int:
        """What fits a small GPU at 640 pixels."""
        return 32

    def warm(self) -> None:
        """Run once, so that the first image of a run is not slower than the rest."""
        width, height = self._canvas
        self.detect([Image(np.full((height, width, 3), 114, np.uint8))], [DetectParameters()])

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        letterboxes = [Letterbox.fit((image.width, image.height), self._canvas, self._stride) for image in images]
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, letterbox in enumerate(letterboxes):
            groups[letterbox.canvas].append(index)
        found: dict[int, Found] = {}
        for rows in groups.values():
            predictions = self._infer(np.stack([letterboxes[row].apply(images[row].pixels) for row in rows]))
            for row, prediction in zip(rows, predictions, strict=True):
                found[row] = read_yolo(prediction, Thresholds.of(parameters[row], self._spec), letterboxes[row])
        return join([found[row] for row in range(len(images))])

    def close(self) -> None:
        """Let go of the network, and of the device's memory."""
        del self._network

    def _infer(self, canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw head output, (n, 4 + classes, anchors), of canvases (n, height, width, 3)."""
        with self._lock, self._torch.inference_mode():
            planes = self._torch.from_numpy(canvases).to(self._device).permute(0, 3, 1, 2).float().div_(255)
            output = self._network(planes)
            raw = output[0] if isinstance(output, list | tuple) else output
            predictions: NDArray[np.float32] = raw.float().cpu().numpy()
        return predictions


def _load_network(ultralytics: Any, file: ModelFile) -> Any:
    try:
        model = ultralytics.YOLO(str(file.path), task="detect")
        network = model.model
    except Exception as error:
        raise ConfigurationError(f"{file.path} is not a checkpoint that Ultralytics loads safely: {error}") from error
    if model.task != "detect" or getattr(network, "end2end", False):
        raise ConfigurationError(
            f"{file.path} is a {model.task} model of a head without NMS; a YOLOv8-style detection head is needed"
        )
    return network.fuse(verbose=False).float().eval()


def _choose_device(torch: Any, wanted: str) -> tuple[Any, str]:
    chosen = wanted.lower()
    if chosen == "auto":
        chosen = "cuda:0" if torch.cuda.is_available() else "cpu"
        log.info("device auto: %s, as torch %s a CUDA device", chosen, "sees" if chosen != "cpu" else "does not see")
    try:
        device = torch.device(chosen)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"torch has no device {wanted} here: {error}") from error
    return device, str(torch.cuda.get_device_name(device) if device.type == "cuda" else device)
