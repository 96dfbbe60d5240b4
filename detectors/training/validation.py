"""How well a network that is being trained detects: mAP on the validation set, by the evaluation and the boxes of the engine."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detectors.base import Boxes
from detectors.boxes import Found, Letterbox, Thresholds, join, read_yolo
from detectors.evaluation import evaluate
from detectors.evaluation_truth import ClassMap, GroundTruth, match_classes, read_truth
from detectors.training import dataset as data
from detectors.training.batches import load
from detectors.training.device import Device
from detectors.training.network import Network
from detectors.training.pictures import BrokenPictureError, read_sample
from detectors.training.recipe import EvaluationPlan

# The whole range of scores but its lowest end, which costs most of the time and adds next to nothing to the mean.
_THRESHOLDS = Thresholds(confidence=0.005, iou=0.6, limit=100)
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean average precision in 0..1, at IoU 0.5 and over IoU 0.5 to 0.95; `pictures` is how many they were measured on."""

    map50: float
    map50_95: float
    pictures: int


class Validation:
    """The validation set of a run, at most so many pictures of it, always the same ones. Raises ConfigurationError for no COCO file."""

    def __init__(self, folder: Path, dataset: data.Dataset, plan: EvaluationPlan) -> None:
        self._truth: GroundTruth = read_truth(folder if folder.is_file() else folder / data.ANNOTATIONS)
        self._classes: ClassMap = match_classes(dataset.names, self._truth.categories)
        count = min(plan.pictures, len(dataset.pictures))
        # Evenly spread: sets are often sorted by what is in them.
        rows = np.linspace(0, len(dataset.pictures) - 1, count).round().astype(int).tolist()
        ids = list(self._truth.files)
        self._ids = [ids[row] for row in rows]
        self._pictures = _Letterboxed([dataset.pictures[row] for row in rows], plan.image_size)

    def score(self, network: Network, device: Device, workers: int) -> Scores:
        """Detect and evaluate. A picture that does not decode is left out of the figures.

        The network is put into evaluation mode and left in it.
        """
        network.eval()
        ids: list[int] = []
        found: list[Found] = []
        starts = range(0, len(self._ids), _BATCH)
        for start, (pixels, letterboxes) in zip(starts, load(self._pictures, starts, workers), strict=True):
            predictions = _predict(network, pixels, device)
            for image_id, prediction, letterbox in zip(
                self._ids[start : start + _BATCH], predictions, letterboxes, strict=True
            ):
                if letterbox is not None:
                    ids.append(image_id)
                    found.append(read_yolo(prediction, _THRESHOLDS, letterbox))
        boxes: Boxes = join(found)
        evaluation = evaluate(self._truth, ids, boxes, self._classes)
        return Scores(evaluation.map50, evaluation.map50_95, len(ids))


class _Letterboxed(Dataset[tuple[Tensor, list[Letterbox | None]]]):
    """A batch by the number of its first picture: uint8 (n, side, side, 3), and where each picture lies; None for a broken one."""

    def __init__(self, pictures: list[data.Picture], side: int) -> None:
        self._pictures, self._side = pictures, side

    def __getitem__(self, start: int) -> tuple[Tensor, list[Letterbox | None]]:
        entries = [self._read(picture) for picture in self._pictures[start : start + _BATCH]]
        return torch.from_numpy(np.stack([pixels for pixels, _ in entries])), [letterbox for _, letterbox in entries]

    def _read(self, picture: data.Picture) -> tuple[NDArray[np.uint8], Letterbox | None]:
        canvas = (self._side, self._side)
        try:
            pixels = read_sample(picture, self._side).pixels
        except BrokenPictureError:
            return np.zeros((*canvas, 3), np.uint8), None
        letterbox = Letterbox.fit((picture.width, picture.height), canvas)
        return letterbox.apply(pixels), letterbox


def _predict(network: Network, pixels: Tensor, device: Device) -> list[NDArray[np.float32]]:
    """Each picture's (4 + classes, places), in pixels of the canvas."""
    with torch.inference_mode(), device.autocast():
        decoded: Tensor = network.decode(network(device.as_input(pixels)))
    return list(decoded.float().cpu().numpy())
