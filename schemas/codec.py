"""Records <-> Avro bytes in Confluent framing: one at a time for the edges, whole runs as Arrow batches on the hot path.

A framed value is `0x00`, the schema id as 4 bytes big-endian, and the Avro binary. Runs go through `schemas.columnar`; whatever that
refuses is decoded here record by record with fastavro, which is the reference for what is right.
"""

import io
import json
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import cattrs
import fastavro
import numpy as np
import pyarrow as pa
from fastavro.validation import validate
from numpy.typing import NDArray

from schemas import arrow, avro_files, columnar
from schemas.control import ApiKey, AuditEvent, Batch, Deletion, WorkerProgress
from schemas.drift import DriftAlert, DriftBaseline
from schemas.errors import Reason, RejectedError
from schemas.models import ModelStatus, ModelVersion
from schemas.records import DeadLetter, DetectionResult, ImageRef
from schemas.replays import ReplayManifest, ReplayProgress
from schemas.rollouts import Rollout, Verdict

# A stretch with a bad record in it is halved down to this many, so that it costs a few records and not the run.
_RECORD_BY_RECORD = 8

FRAME = struct.Struct(">bI")

AnyRecord = (
    ImageRef
    | DetectionResult
    | DeadLetter
    | Batch
    | Deletion
    | ApiKey
    | WorkerProgress
    | AuditEvent
    | ModelVersion
    | ModelStatus
    | Rollout
    | Verdict
    | ReplayManifest
    | ReplayProgress
    | DriftBaseline
    | DriftAlert
)
Record = TypeVar(
    "Record",
    ImageRef,
    DetectionResult,
    DeadLetter,
    Batch,
    Deletion,
    ApiKey,
    WorkerProgress,
    AuditEvent,
    ModelVersion,
    ModelStatus,
    Rollout,
    Verdict,
    ReplayManifest,
    ReplayProgress,
    DriftBaseline,
    DriftAlert,
)
RunType = type[ImageRef] | type[DetectionResult]

_ARROW: dict[str, pa.Schema] = {"ImageRef": arrow.IMAGE_REF, "DetectionResult": arrow.DETECTION_RESULT}


class SchemaIds(Protocol):
    """Who knows which id stands for which schema: the packaged order, or a registry."""

    def id_of(self, record: str) -> int:
        """The id under which this release writes `record` (such as `ImageRef`)."""

    def schema_of(self, schema_id: int) -> str:
        """The writer's schema, as JSON. Raises RejectedError where the id is unknown, BusyError where that cannot be found out now."""


class PackagedSchemas:
    """Ids without a registry: the 1-based place of a schema in `avro_files.ORDER`, the same in every process."""

    def id_of(self, record: str) -> int:
        """The place of the newest version."""
        return avro_files.ORDER.index(avro_files.current(record)) + 1

    def schema_of(self, schema_id: int) -> str:
        """The packaged schema at that place."""
        if not 1 <= schema_id <= len(avro_files.ORDER):
            raise RejectedError(Reason.SCHEMA_UNKNOWN, f"no packaged schema has the id {schema_id}")
        return avro_files.text(avro_files.ORDER[schema_id - 1])


@dataclass(frozen=True, slots=True, eq=False)
class DecodedRun:
    """A run as one batch: row i is value `index[i]` of the input (ascending); `rejected` are the values that could not be read."""

    batch: pa.RecordBatch
    index: NDArray[np.int32]
    rejected: tuple[tuple[int, RejectedError], ...] = ()


class Codec:
    """Encodes and decodes all records. Thread-safe. Readers resolve any writer's schema to this release's."""

    def __init__(self, schemas: SchemaIds) -> None:
        self._schemas = schemas
        self._parsed: dict[str, Any] = {}
        self._converter = cattrs.Converter(unstruct_collection_overrides={tuple: list})
        self._converter.register_structure_hook(datetime, lambda value, _: value)
        self._converter.register_unstructure_hook(datetime, lambda value: value)

    def frame(self, record: str) -> bytes:
        """The five bytes before each value of `record` that this release writes."""
        return FRAME.pack(0, self._schemas.id_of(record))

    def encode(self, record: AnyRecord) -> bytes:
        """One framed value. Raises ValueError or TypeError where a field does not hold what its schema says."""
        name = type(record).__name__
        out = io.BytesIO()
        out.write(self.frame(name))
        fastavro.schemaless_writer(
            out, self._schema(avro_files.text(avro_files.current(name))), self._converter.unstructure(record)
        )
        return out.getvalue()

    def decode(self, value: bytes | None, record: type[Record]) -> Record:
        """One record from its framed value. Raises RejectedError where it cannot be read, BusyError where the registry does not answer."""
        name = record.__name__
        fields = self._read(value, name)
        if not validate(fields, self._schema(avro_files.text(avro_files.current(name))), raise_errors=False):
            raise RejectedError(Reason.AVRO_UNREADABLE, f"not a {name}: a number beyond its type")
        try:
            return self._converter.structure(fields, record)
        except cattrs.BaseValidationError as error:
            raise _unreadable(name, error) from error

    def decode_run(self, values: Sequence[bytes | None], record: RunType) -> DecodedRun:
        """A run as one Arrow batch; an unreadable value costs no neighbour. Raises BusyError where the registry does not answer."""
        name = record.__name__
        frame = self.frame(name)
        payloads = [value[5:] for value in values if value is not None and value.startswith(frame)]
        if len(payloads) == len(values):
            batch = columnar.decode(payloads, avro_files.text(avro_files.current(name)))
            if batch is not None:
                return DecodedRun(batch, np.arange(len(values), dtype=np.int32))
        return self._decode_groups(values, name)

    def encode_run(self, batch: pa.RecordBatch, record: RunType) -> list[bytes]:
        """The framed values of a batch whose columns are those of the record, in order.

        Raises ValueError or TypeError where a row does not hold what the schema says.
        """
        name = record.__name__
        encoded = columnar.encode(batch, avro_files.text(avro_files.current(name)), self.frame(name))
        if encoded is not None:
            return encoded
        schema = self._schema(avro_files.text(avro_files.current(name)))
        return [self._write(name, schema, row) for row in batch.to_pylist(maps_as_pydicts="strict")]

    def _decode_groups(self, values: Sequence[bytes | None], name: str) -> DecodedRun:
        """The slow road: by writer's schema, columnar where that goes; a group that does not is halved until it is small."""
        stretches: dict[bytes, list[int]] = defaultdict(list)
        for at, value in enumerate(values):
            stretches[(value or b"")[:5]].append(at)
        batches, index, rejected = [], [], []
        left = list(stretches.items())
        while left:
            frame, places = left.pop()
            group = [values[at] for at in places]
            batch = self._decode_foreign(frame, group, name)
            if batch is None and len(places) > _RECORD_BY_RECORD:
                half = len(places) // 2
                left += [(frame, places[:half]), (frame, places[half:])]
                continue
            if batch is None:
                batch, good, bad = self._decode_each(group, name)
                rejected += [(places[at], error) for at, error in bad]
                places = [places[at] for at in good]
            batches.append(batch)
            index += places
        return _in_order(batches, np.array(index, np.int32), rejected, _ARROW[name])

    def _decode_foreign(self, frame: bytes, values: Sequence[bytes | None], name: str) -> pa.RecordBatch | None:
        """A group written with one known schema, or None where only the record-by-record road can tell."""
        if len(frame) < 5 or frame[0] != 0:
            return None
        try:
            writer = self._schemas.schema_of(FRAME.unpack(frame)[1])
        except RejectedError:
            return None
        return columnar.decode_as(
            [value[5:] for value in values if value is not None],
            writer,
            avro_files.text(avro_files.current(name)),
            _ARROW[name],
        )

    def _decode_each(
        self, values: Sequence[bytes | None], name: str
    ) -> tuple[pa.RecordBatch, list[int], list[tuple[int, RejectedError]]]:
        rows, good, bad = [], [], []
        for at, value in enumerate(values):
            try:
                row = self._read(value, name)
                pa.RecordBatch.from_pylist([row], schema=_ARROW[name])
            except RejectedError as error:
                bad.append((at, error))
            except pa.ArrowException as error:
                bad.append((at, _unreadable(name, error)))
            else:
                rows.append(row)
                good.append(at)
        return pa.RecordBatch.from_pylist(rows, schema=_ARROW[name]), good, bad

    def _read(self, value: bytes | None, name: str) -> dict[str, Any]:
        """Fields of a framed value, resolved to the current schema; RejectedError for anything that is not exactly one record."""
        if value is None or len(value) < FRAME.size or value[0] != 0:
            raise RejectedError(Reason.AVRO_UNREADABLE, "not a framed Avro value")
        writer = self._schemas.schema_of(FRAME.unpack_from(value)[1])
        reader = avro_files.text(avro_files.current(name))
        body = io.BytesIO(value)
        body.seek(FRAME.size)
        try:
            fields = fastavro.schemaless_reader(
                body, self._schema(writer), None if writer == reader else self._schema(reader)
            )
        except Exception as error:  # fastavro raises whatever the broken bytes lead it into
            raise _unreadable(name, error) from error
        if body.tell() != len(value):
            raise RejectedError(Reason.AVRO_UNREADABLE, f"{len(value) - body.tell()} bytes after the {name}")
        return dict(fields)

    def _write(self, name: str, schema: Any, row: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        out.write(self.frame(name))
        fastavro.schemaless_writer(out, schema, row)
        return out.getvalue()

    def _schema(self, text: str) -> Any:
        if text not in self._parsed:
            self._parsed[text] = fastavro.parse_schema(json.loads(text))
        return self._parsed[text]


def _unreadable(name: str, error: Exception) -> RejectedError:
    """A resolution error holds both schemas, which is more than a dead letter wants to say."""
    return RejectedError(Reason.AVRO_UNREADABLE, f"not a {name}: {type(error).__name__}: {error}"[:300])


def _in_order(
    batches: Sequence[pa.RecordBatch],
    index: NDArray[np.int32],
    rejected: Sequence[tuple[int, RejectedError]],
    schema: pa.Schema,
) -> DecodedRun:
    """Groups put back into the order of the input."""
    order = np.argsort(index, kind="stable")
    table = pa.Table.from_batches(batches, schema).take(pa.array(order))
    batch = table.combine_chunks().to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=schema)
    return DecodedRun(batch, index[order], tuple(sorted(rejected, key=lambda item: item[0])))
