"""Ultralytics as its users run it: `model.predict` on one file after the other, in an environment that is none of ours."""

import json
import sys

from tests.benchmarks.sides.effort import effort

_WARM = 16


def main() -> None:
    """Every photograph through `predict`."""
    # Not by our own import of it: that sets how torch's threads wait, and users have what torch has by default.
    from ultralytics import YOLO

    task = json.loads(sys.argv[1])
    model = YOLO(task["model"], task="detect")
    wanted = {"conf": 0.25, "iou": 0.7, "max_det": 300, "imgsz": 640, "verbose": False, "device": task["device"]}
    for path in task["paths"][:_WARM]:
        model.predict(path, **wanted)
    with effort() as said:
        boxes = sum(len(model.predict(path, **wanted)[0].boxes) for path in task["paths"])
    print(json.dumps({**said, "boxes": boxes}), flush=True)


if __name__ == "__main__":
    main()
