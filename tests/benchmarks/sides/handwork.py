"""What the worker does to a reference, written by hand on fastavro: how a user who knows Kafka and Avro would do it without this project.

Needs nothing but the standard library, fastavro and the packaged schemas, so that it runs in Quix Streams' environment, too.
"""

import hashlib
import json
import struct
import time
from io import BytesIO
from typing import Any

import fastavro

from schemas import avro_files

_FRAME = struct.Struct(">bI")
_DIGEST = "sha256:" + hashlib.sha256(b"noop").hexdigest()
_TAIL = f"\0{_DIGEST}\0[null,null,null,null]"


def _schema(record: str) -> Any:
    """A parsed schema whose times stay whole numbers: making datetime objects of them would only cost."""
    avro = avro_files.parsed(avro_files.current(record))
    for field in avro["fields"]:
        for kind in field["type"] if isinstance(field["type"], list) else [field["type"]]:
            if isinstance(kind, dict):
                kind.pop("logicalType", None)
    return fastavro.parse_schema(avro)


class Handwork:
    """One reference to one result that found nothing: the same fields, id and bytes as the worker's."""

    def __init__(self) -> None:
        self._ref, self._result = _schema("ImageRef"), _schema("DetectionResult")
        self._frame = _FRAME.pack(0, avro_files.ORDER.index(avro_files.current("DetectionResult")) + 1)

    def result(self, value: bytes, topic: str, partition: int, offset: int) -> bytes:
        """Decode, "detect", encode."""
        ref: Any = fastavro.schemaless_reader(BytesIO(value[_FRAME.size :]), self._ref, None)
        now_us = time.time_ns() // 1000
        result = {
            "id": _result_id(ref),
            "image_id": ref["id"],
            "uri": ref["uri"],
            "tenant": ref["tenant"],
            "key": ref["key"],
            "batch_id": ref["batch_id"],
            "lane": ref["lane"],
            "model_name": "noop",
            "model_version": "",
            "model_digest": _DIGEST,
            "backend": "noop",
            "precision": "f32",
            "device": "none",
            "batch_size": 1,
            "image_width": 1,
            "image_height": 1,
            "detections": [],
            "source_topic": topic,
            "source_partition": partition,
            "source_offset": offset,
            "submitted_at": ref["submitted_at"],
            "completed_at": now_us,
            "timings": {
                "wait_ms": (now_us - ref["submitted_at"]) / 1000,
                "fetch_ms": 0.0,
                "decode_ms": 0.0,
                "inference_ms": 0.0,
            },
            "attributes": ref["attributes"],
        }
        out = BytesIO()
        out.write(self._frame)
        fastavro.schemaless_writer(out, self._result, result)
        return out.getvalue()


def _result_id(ref: Any) -> str:
    tail = _TAIL
    if any(wish is not None for wish in ref["parameters"].values()):
        wishes = [ref["parameters"][name] for name in ("confidence", "iou", "max_detections", "classes")]
        tail = f"\0{_DIGEST}\0{json.dumps(wishes, separators=(',', ':'))}"
    return hashlib.blake2b(f"{ref['tenant']}\0{ref['id']}{tail}".encode(), digest_size=16).hexdigest()
