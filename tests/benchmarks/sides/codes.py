"""What the engine finds in pictures, at the threshold that the model has of itself, in a process of its own."""

import json
import sys
from pathlib import Path

from detectors.evaluation_run import predict
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters


def main() -> None:
    """Boxes as rows left, top, right, bottom, label, score, in the order of the pictures."""
    task = json.loads(sys.argv[1])
    detector = open_detector(ModelSpec(**task["spec"]), Path(task["cache"]))
    found = predict(detector, dict(enumerate(map(Path, task["paths"]))), ImagePolicy(), DetectParameters())
    if found.missing:
        raise RuntimeError(f"pictures were not read: {dict(found.missing)}")
    labels, boxes = detector.model.labels, found.boxes
    rows = [
        [*corners, labels[class_id], score]
        for corners, class_id, score in zip(
            boxes.xyxy.tolist(), boxes.class_ids.tolist(), boxes.scores.tolist(), strict=True
        )
    ]
    pictures = [rows[start:end] for start, end in zip(boxes.offsets[:-1], boxes.offsets[1:], strict=True)]
    by_number = dict(zip(found.image_ids, pictures, strict=True))
    said = {"model": detector.model.name, "digest": detector.model.digest, "precision": detector.model.precision}
    print(json.dumps({**said, "boxes": [by_number[number] for number in range(len(by_number))]}), flush=True)
    detector.close()


if __name__ == "__main__":
    main()
