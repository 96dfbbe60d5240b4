"""A batch as a COCO document, written page by page."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from schemas.records import Detection
from sinks.coco_categories import Categories
from sinks.results_view import time_text
from sinks.stored import StoredBatch, StoredImage, StoredResult

COCO_TYPE = "application/vnd.coco+json"
_SPOOL_BYTES = 4 << 20  # in memory; more goes to a file
_CHUNK_BYTES = 1 << 18


class CocoExport:
    """The completed images of a batch and their boxes as one COCO document with scores.

    Image ids are numbers within the document; `sightstream_id` names the image. `info` says how the batch stood, `failed` lists
    images without a result, which are no images without objects. Categories come last, when all are known.
    """

    def __init__(self, batch: StoredBatch) -> None:
        self._batch = batch
        self._categories = Categories()
        self._failed: list[dict[str, str]] = []
        self._images = self._boxes = 0
        # Images and boxes arrive together, but one list follows the other.
        self._later = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed by `close`

    def begin(self) -> bytes:
        """What the batch is."""
        batch = self._batch
        info = {
            "description": f"batch {batch.id}",
            "date_created": time_text(batch.created_at),
            "status": batch.status,
            "completed": batch.completed,
            "failed": batch.failed,
            "unfinished": batch.queued + batch.processing,
        }
        return f'{{"info":{_dumps(info)},"images":['.encode()

    def add(self, images: Sequence[StoredImage]) -> bytes:
        """The images; their boxes are kept for later."""
        told = [self._image(image, image.result) for image in images if image.result is not None]
        self._failed += [
            {"sightstream_id": image.id, "code": image.failure.code}
            for image in images
            if image.result is None and image.failure is not None
        ]
        return "".join(told).encode()

    def end(self) -> Iterator[bytes]:
        """The boxes, then the categories."""
        yield b'],"annotations":['
        self._later.seek(0)
        while chunk := self._later.read(_CHUNK_BYTES):
            yield chunk
        yield f'],"categories":{_dumps(self._categories.listed())},"failed":{_dumps(self._failed)}}}'.encode()

    def close(self) -> None:
        """Forget the boxes."""
        self._later.close()

    def _image(self, image: StoredImage, result: StoredResult) -> str:
        self._images += 1
        for box in result.detections():
            self._boxes += 1
            self._later.write(f"{_comma(self._boxes)}{_dumps(self._annotation(box))}".encode())
        entry = {
            "id": self._images,
            "file_name": _file_name(image),
            "width": result.width,
            "height": result.height,
            "sightstream_id": image.id,
        }
        return f"{_comma(self._images)}{_dumps(entry)}"

    def _annotation(self, box: Detection) -> dict[str, Any]:
        wide, high = round(box.x2 - box.x1, 2), round(box.y2 - box.y1, 2)
        return {
            "id": self._boxes,
            "image_id": self._images,
            "category_id": self._categories.id_of(box.class_id, box.label),
            "bbox": [box.x1, box.y1, wide, high],
            "area": round(wide * high, 2),
            "iscrowd": 0,
            "score": box.score,
        }


def _comma(number: int) -> str:
    return "" if number == 1 else ","


def _file_name(image: StoredImage) -> str:
    """What the image was called where it came from; folders and hosts are nobody's business."""
    try:
        path = unquote(urlsplit(image.uri).path)
    except ValueError:
        return image.id
    return path.rpartition("/")[2] or image.id


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
