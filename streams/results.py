"""Results as columns: a batch of references and its boxes become one Arrow batch of `DetectionResult`s."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.ma  # pyarrow loads it at its first array, which would take half a second of the first batch
import pyarrow as pa
from numpy.typing import NDArray

from detectors.base import Boxes
from schemas import arrow
from schemas.records import DetectParameters
from streams.failures import retry_state
from streams.work import Share, Work

_BOX = arrow.DETECTION_RESULT.field("detections").type.value_type
_TIMINGS = arrow.DETECTION_RESULT.field("timings").type
_SEPARATOR = "\0"
# What a result says of its reference, word for word.
_COPIED = ("uri", "tenant", "key", "batch_id", "lane", "submitted_at", "attributes", "replay_id", "silent")


def results_in_order(work: Work, completed_at_us: int) -> pa.RecordBatch:
    """The results of all shares, at least one, in the order of their references."""
    batches = [results(share, work, completed_at_us) for share in work.shares]
    if len(batches) == 1:
        return batches[0]
    order = np.argsort(np.concatenate([share.index for share in work.shares]))
    table: pa.Table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches()[0].take(pa.array(order))


def results(share: Share, work: Work, completed_at_us: int) -> pa.RecordBatch:
    """One row a row of the share, in order; columns of `schemas.arrow.DETECTION_RESULT`."""
    assert share.boxes is not None
    refs, count, model = share.refs, share.refs.num_rows, share.loaded.detector.model
    where = _sources(share, work)
    columns: dict[str, Any] = {name: refs.column(name) for name in _COPIED}
    constants: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.version,
        "model_digest": model.digest,
        "backend": model.backend,
        "precision": model.precision,
        "device": model.device,
        "batch_size": count,
        "completed_at": completed_at_us,
        "rollout": None,
        "arm": None,
    }
    columns |= {
        name: pa.repeat(pa.scalar(value, arrow.DETECTION_RESULT.field(name).type), count)
        for name, value in constants.items()
    }
    columns |= {
        "id": pa.array(_ids(share), pa.string()),
        "image_id": refs.column("id"),
        "image_width": pa.array([image.width for image in share.images], pa.int32()),
        "image_height": pa.array([image.height for image in share.images], pa.int32()),
        "detections": _detections(share.boxes, model.labels),
        "source_topic": pa.array(where["source_topic"], pa.string()),
        "source_partition": pa.array(where["source_partition"], pa.int32()),
        "source_offset": pa.array(where["source_offset"], pa.int64()),
        "timings": _timings(share, work.taken_at_us),
    }
    if share.routes is not None:
        columns["rollout"] = pa.array([route.rollout for route in share.routes], pa.string())
        columns["arm"] = pa.array([route.arm for route in share.routes], pa.string())
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in arrow.DETECTION_RESULT.names], schema=arrow.DETECTION_RESULT
    )


def _ids(share: Share) -> list[str]:
    """Ids of pieces of work: 32 hex digits of BLAKE2b over tenant, image id, identity of the model that was asked for, and parameters.

    Not of the file that ran: a worker that runs the model's quantised sibling and one that does not do the same work. What a replay makes
    is work of its own, also where its model has seen the image before: its id is of the replay as well.
    """
    refs, identity = share.refs, share.loaded.identity
    tenants, images = refs.column("tenant").to_pylist(), refs.column("id").to_pylist()
    tails: dict[int, str] = {}  # requests of a batch mostly share one parameters object
    for parameters in share.parameters:
        if id(parameters) not in tails:
            tails[id(parameters)] = f"{_SEPARATOR}{identity}{_SEPARATOR}{_canonical(parameters)}"
    wanted = [tails[id(parameters)] for parameters in share.parameters]
    if refs.column("replay_id").null_count < len(share):
        replays = refs.column("replay_id").to_pylist()
        wanted = [f"{tail}{_SEPARATOR}{one}" if one else tail for tail, one in zip(wanted, replays, strict=True)]
    return [_id(tail, tenant, image) for tail, tenant, image in zip(wanted, tenants, images, strict=True)]


def _id(tail: str, tenant: str, image_id: str) -> str:
    return hashlib.blake2b(f"{tenant}{_SEPARATOR}{image_id}{tail}".encode(), digest_size=16).hexdigest()


def _canonical(parameters: DetectParameters) -> str:
    values = (parameters.confidence, parameters.iou, parameters.max_detections, parameters.classes)
    return json.dumps(values, separators=(",", ":"))


def _sources(share: Share, work: Work) -> dict[str, Sequence[Any]]:
    """Columns of where each row's record was first published."""
    records = [work.records[at] for at in share.index.tolist()]
    if not any(record.headers for record in records):
        return {
            "source_topic": [record.topic for record in records],
            "source_partition": [record.partition for record in records],
            "source_offset": [record.offset for record in records],
        }
    topics, partitions, offsets = zip(*map(_source, records), strict=True)
    return {"source_topic": topics, "source_partition": partitions, "source_offset": offsets}


def _source(record: Any) -> tuple[str, int, int]:
    """Where a record was first published: one that came back from a retry topic says so in its headers."""
    if not record.headers:
        return record.topic, record.partition, record.offset
    origin = retry_state(record).origin
    return origin.topic, origin.partition, origin.offset


def _detections(boxes: Boxes, labels: Sequence[str]) -> pa.ListArray:
    count = len(boxes.scores)
    fields = {
        "label": pa.array(labels, pa.string()).take(pa.array(boxes.class_ids)) if count else pa.array([], pa.string()),
        "class_id": pa.array(boxes.class_ids, pa.int32()),
        "score": pa.array(boxes.scores, pa.float32()),
        **{
            name: pa.array(np.ascontiguousarray(boxes.xyxy[:, at]), pa.float32())
            for at, name in enumerate(("x1", "y1", "x2", "y2"))
        },
    }
    structs = pa.StructArray.from_arrays([fields[field.name] for field in _BOX], fields=list(_BOX))
    return pa.ListArray.from_arrays(
        pa.array(boxes.offsets, pa.int32()), structs, type=arrow.DETECTION_RESULT.field("detections").type
    )


def _timings(share: Share, taken_at_us: int) -> pa.StructArray:
    submitted: NDArray[np.int64] = share.refs.column("submitted_at").cast(pa.int64()).to_numpy()
    columns = {
        "wait_ms": pa.array(((taken_at_us - submitted) / 1000).astype(np.float32)),
        "fetch_ms": pa.array([image.fetch_ms for image in share.images], pa.float32()),
        "decode_ms": pa.array([image.decode_ms for image in share.images], pa.float32()),
        "inference_ms": pa.array(np.full(len(submitted), share.inference_ms, np.float32)),
    }
    return pa.StructArray.from_arrays([columns[field.name] for field in _TIMINGS], fields=list(_TIMINGS))
