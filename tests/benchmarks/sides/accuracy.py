"""How well the engine does on photographs with ground truth, in a process of its own."""

import json
import sys
from pathlib import Path

from detectors.evaluation import evaluate
from detectors.evaluation_run import predict
from detectors.evaluation_truth import match_classes, read_truth
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters

_EVERYTHING = DetectParameters(confidence=0.001, iou=0.7, max_detections=300)


def main() -> None:
    """mAP50-95 over the photographs."""
    task = json.loads(sys.argv[1])
    truth, folder = read_truth(Path(task["truth"])), Path(task["folder"])
    files = {image_id: folder / name for image_id, name in truth.files.items()}
    detector = open_detector(ModelSpec(**task["spec"]), Path(task["cache"]))
    found = predict(detector, files, ImagePolicy(), _EVERYTHING)
    classes = match_classes(detector.model.labels, truth.categories)
    figures = evaluate(truth, found.image_ids, found.boxes, classes)
    print(json.dumps({"map50_95": figures.map50_95, "precision": detector.model.precision}), flush=True)
    detector.close()


if __name__ == "__main__":
    main()
