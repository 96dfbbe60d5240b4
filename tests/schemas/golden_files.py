"""Writes the golden files of the current versions: `python -m tests.schemas.golden_files`. Files that exist are left alone."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas import avro_files
from schemas.codec import Codec, PackagedSchemas
from schemas.control import ApiKey, AuditEvent, Batch, Deletion, WorkerProgress
from schemas.drift import DriftAlert, DriftBaseline, DriftState
from schemas.models import FileRef, ModelState, ModelStatus, ModelVersion, Stage
from schemas.records import (
    DeadLetter,
    Detection,
    DetectionResult,
    DetectParameters,
    Header,
    ImageRef,
    Lane,
    Timings,
)
from schemas.replays import ReplayManifest, ReplayMark, ReplayPosition, ReplayProgress, ReplayRange, ReplayState
from schemas.rollouts import ArmFigures, CanaryGuard, Decision, Rollout, RolloutKind, RolloutState, Verdict

FOLDER = Path(__file__).parent / "golden"
_DAY = datetime(2026, 11, 22, 3, 4, 5, 678901, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_FIRST = datetime.min.replace(tzinfo=UTC)
_TEXT = "naïve 🦊 \x00 日本語 \u202e"
_BOX = Detection(label="person", class_id=0, score=0.875, x1=1.5, y1=-2.25, x2=639.0, y2=480.0)

# Record -> its class, and its cases: the least, an ordinary one, and one at the edges.
CASES: dict[str, tuple[type, dict[str, Any]]] = {
    "ImageRef": (
        ImageRef,
        {
            "least": ImageRef(id="a", uri="file:///a.jpg"),
            "usual": ImageRef(
                id="0f8fad5bd9cb469fa16570867728950e",
                uri="s3://photos/2026/11/22/0001.jpg",
                tenant="acme",
                key="camera-7",
                batch_id="batch-1",
                model="yolo@3",
                parameters=DetectParameters(confidence=0.25, iou=0.5, max_detections=100, classes=(0, 2, 7)),
                sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                submitted_at=_DAY,
                deadline=_DAY,
                attributes={"site": "north", "shift": "2"},
                replay_id="6ec0bd7f11c0",
                into="detections.trial",
                silent=True,
            ),
            "edge": ImageRef(
                id="",
                uri=_TEXT,
                tenant="",
                batch_id="",
                lane=Lane.BULK,
                parameters=DetectParameters(classes=(), max_detections=-(2**31)),
                submitted_at=_FIRST,
                deadline=_LAST,
                attributes={"": _TEXT, _TEXT: ""},
                replay_id="",
                into=_TEXT,
            ),
        },
    ),
    "DetectionResult": (
        DetectionResult,
        {
            "least": DetectionResult(id="r", image_id="a", uri="file:///a.jpg"),
            "usual": DetectionResult(
                id="6ec0bd7f11c043da975e2a8ad9ebae0b",
                image_id="0f8fad5bd9cb469fa16570867728950e",
                uri="s3://photos/2026/11/22/0001.jpg",
                tenant="acme",
                key="camera-7",
                batch_id="batch-1",
                model_name="yolo",
                model_version="3",
                model_digest="sha256:00ff",
                backend="openvino",
                precision="f32",
                device="CPU",
                batch_size=32,
                image_width=640,
                image_height=480,
                detections=(_BOX, _BOX),
                source_topic="images.online",
                source_partition=3,
                source_offset=123_456_789_012,
                submitted_at=_DAY,
                completed_at=_DAY,
                timings=Timings(wait_ms=1.5, fetch_ms=2.5, decode_ms=3.5, inference_ms=4.5),
                attributes={"site": "north"},
                replay_id="6ec0bd7f11c0",
                silent=True,
                rollout="0f8fad5b",
                arm="candidate",
            ),
            "edge": DetectionResult(
                id=_TEXT,
                image_id="",
                uri="",
                lane=Lane.BULK,
                batch_size=2**31 - 1,
                detections=(_BOX,) * 300,
                source_partition=-(2**31),
                source_offset=2**63 - 1,
                submitted_at=_FIRST,
                completed_at=_LAST,
                attributes={_TEXT: _TEXT},
            ),
        },
    ),
    "DeadLetter": (
        DeadLetter,
        {
            "least": DeadLetter(code="avro_unreadable", message="", stage="decode"),
            "usual": DeadLetter(
                code="image_corrupt",
                message="not a JPEG",
                stage="detect",
                attempts=4,
                image_id="0f8fad5bd9cb469fa16570867728950e",
                tenant="acme",
                batch_id="batch-1",
                value=b"\x00\x00\x00\x00\x01abc",
                key=b"camera-7",
                headers=(Header(name="traceparent", value=b"00-1-2-01"), Header(name="retry.attempt", value=b"3")),
                source_topic="images.bulk",
                source_partition=1,
                source_offset=42,
                source_timestamp_ms=1_795_000_000_000,
                consumer_group="sightstream",
                service_version="0.1.0",
                first_failed_at=_DAY,
                failed_at=_DAY,
            ),
            "edge": DeadLetter(
                code=_TEXT,
                message=_TEXT * 50,
                stage="",
                value=b"",
                key=bytes(range(256)),
                headers=(Header(name="", value=None), Header(name=_TEXT, value=b"")),
                source_offset=-(2**63),
                first_failed_at=_FIRST,
                failed_at=_LAST,
            ),
        },
    ),
    "Batch": (
        Batch,
        {
            "least": Batch(id="b"),
            "usual": Batch(
                id="batch-1",
                tenant="acme",
                images=1_000,
                callback="https://example.org/done",
                created_at=_DAY,
                closed_at=_DAY,
                attributes={"site": "north"},
            ),
            "edge": Batch(
                id=_TEXT, tenant="", images=0, callback="", created_at=_FIRST, closed_at=_LAST, attributes={"": ""}
            ),
        },
    ),
    "Deletion": (
        Deletion,
        {
            "least": Deletion(image_id="a"),
            "usual": Deletion(image_id="0f8fad5bd9cb469fa16570867728950e", tenant="acme", deleted_at=_DAY),
            "edge": Deletion(image_id=_TEXT, tenant="", deleted_at=_LAST),
        },
    ),
    "ApiKey": (
        ApiKey,
        {
            "least": ApiKey(id="k"),
            "usual": ApiKey(
                id="4f1c2a9b",
                tenant="acme",
                name="line 7",
                secret_sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                scopes=("submit", "read"),
                created_at=_DAY,
                expires_at=_DAY,
                revoked_at=_DAY,
            ),
            "edge": ApiKey(id="", name=_TEXT, scopes=("",), created_at=_FIRST, expires_at=_LAST, revoked_at=_FIRST),
        },
    ),
    "WorkerProgress": (
        WorkerProgress,
        {
            "least": WorkerProgress(topic="images.online"),
            "usual": WorkerProgress(
                topic="images.online", partition=3, taken=123_456_789_012, group="sightstream", at=_DAY
            ),
            "edge": WorkerProgress(topic=_TEXT, partition=2**31 - 1, taken=2**63 - 1, group=_TEXT, at=_LAST),
        },
    ),
    "AuditEvent": (
        AuditEvent,
        {
            "least": AuditEvent(id="e"),
            "usual": AuditEvent(
                id="0f8fad5b",
                at=_DAY,
                tenant="acme",
                subject="4f1c2a9b",
                action="images.submit",
                target="0f8fad5bd9cb469fa16570867728950e",
                status=202,
                address="192.0.2.7",
                request_id="6ec0bd7f",
                details={"bytes": "30000"},
            ),
            "edge": AuditEvent(id=_TEXT, at=_FIRST, status=-(2**31), details={_TEXT: ""}),
        },
    ),
    "ModelVersion": (
        ModelVersion,
        {
            "least": ModelVersion(name="yolo", version="3"),
            "usual": ModelVersion(
                name="yolo",
                version="3",
                digest="sha256:00ff",
                files=(FileRef(uri="s3://models/yolo.onnx", sha256="00ff", bytes=12_345_678),),
                backend="openvino",
                precision="auto",
                labels=("person", "car"),
                input_width=640,
                input_height=640,
                confidence=0.25,
                iou=0.5,
                metrics={"map50": 0.5},
                licence="AGPL-3.0",
                lineage={"data": "sha256:11"},
                stage=Stage.STABLE,
                added_at=_DAY,
                changed_at=_DAY,
            ),
            "edge": ModelVersion(
                name=_TEXT,
                version="",
                files=(FileRef(bytes=2**63 - 1),) * 3,
                labels=("",),
                input_width=-(2**31),
                metrics={_TEXT: -1e308},
                stage=Stage.RETIRED,
                added_at=_FIRST,
                changed_at=_LAST,
            ),
        },
    ),
    "ModelStatus": (
        ModelStatus,
        {
            "least": ModelStatus(worker="w"),
            "usual": ModelStatus(
                worker="host-1",
                name="yolo",
                version="3",
                digest="sha256:00ff",
                state=ModelState.REFUSED,
                reason="wrong digest",
                at=_DAY,
            ),
            "edge": ModelStatus(worker=_TEXT, state=ModelState.UNLOADED, reason=_TEXT, at=_LAST),
        },
    ),
    "Rollout": (
        Rollout,
        {
            "least": Rollout(id="r"),
            "usual": Rollout(
                id="0f8fad5b",
                name="yolo",
                kind=RolloutKind.CANARY,
                stable="yolo@2",
                candidate="yolo@3",
                steps=(0.05, 0.25, 1.0),
                step=1,
                share=0.25,
                shadow_share=0.5,
                guard=CanaryGuard(window_s=30.0, min_samples=50),
                started_at=_DAY,
                changed_at=_DAY,
                window_start=_DAY,
                judged_until=_DAY,
            ),
            "edge": Rollout(
                id=_TEXT,
                kind=RolloutKind.BLUE_GREEN,
                steps=(0.0,) * 100,
                step=-(2**31),
                state=RolloutState.ROLLED_BACK,
                reason=_TEXT,
                started_at=_FIRST,
                changed_at=_LAST,
            ),
        },
    ),
    "Verdict": (
        Verdict,
        {
            "least": Verdict(rollout_id="r"),
            "usual": Verdict(
                rollout_id="0f8fad5b",
                name="yolo",
                decision=Decision.ROLL_BACK,
                step=1,
                share=0.25,
                window_start=_DAY,
                window_end=_DAY,
                stable=ArmFigures(results=300, failures=1, p95_ms=80.5, boxes_per_image=2.5),
                candidate=ArmFigures(results=100, failures=2, p95_ms=90.5, boxes_per_image=1.5),
                pairs=100,
                objects=120,
                disagreement=0.25,
                reasons=("disagreement 0.25 > 0.05",),
                at=_DAY,
            ),
            "edge": Verdict(
                rollout_id=_TEXT, decision=Decision.PROMOTE, window_start=_FIRST, window_end=_LAST, reasons=("",)
            ),
        },
    ),
    "ReplayManifest": (
        ReplayManifest,
        {
            "least": ReplayManifest(id="p"),
            "usual": ReplayManifest(
                id="6ec0bd7f11c0",
                topic="images.online",
                ranges=(
                    ReplayRange(partition=0, first=10, end=90, references=80, digest="33"),
                    ReplayRange(partition=1),
                ),
                references=80,
                digest="sha256:22",
                model="yolo@3",
                into="detections.trial",
                tenant="acme",
                batch_id="batch-1",
                filters={"site": "north"},
                notify=True,
                marks=(ReplayMark(topic="images.bulk", partition=3, offset=123_456_789_012),),
                created_by="4f1c2a9b",
                created_at=_DAY,
            ),
            "edge": ReplayManifest(id=_TEXT, ranges=(ReplayRange(end=2**63 - 1),), into="", created_at=_LAST),
        },
    ),
    "ReplayProgress": (
        ReplayProgress,
        {
            "least": ReplayProgress(id="p"),
            "usual": ReplayProgress(
                id="6ec0bd7f11c0",
                state=ReplayState.COMPLETED,
                sent=80,
                positions=(ReplayPosition(partition=0, next=90, sent=80, digest="33"),),
                marks=(ReplayMark(topic="images.bulk", partition=3, offset=123_456_789_012),),
                runner="host-1/4711",
                turn=2,
                at=_DAY,
            ),
            "edge": ReplayProgress(id=_TEXT, state=ReplayState.STOPPED, sent=2**63 - 1, at=_FIRST),
        },
    ),
    "DriftBaseline": (
        DriftBaseline,
        {
            "least": DriftBaseline(id="b"),
            "usual": DriftBaseline(
                id="week-47",
                model="yolo@3",
                window_start=_DAY,
                window_end=_DAY,
                slices=("tenant", "key"),
                images=10_000,
                profiles="{}",
                created_at=_DAY,
            ),
            "edge": DriftBaseline(id=_TEXT, slices=("",), profiles=_TEXT, window_start=_FIRST, window_end=_LAST),
        },
    ),
    "DriftAlert": (
        DriftAlert,
        {
            "least": DriftAlert(id="a"),
            "usual": DriftAlert(
                id="0f8fad5b",
                state=DriftState.LASTS,
                baseline_id="week-47",
                tenant="acme",
                slice="key=camera-7",
                statistic="class_mix",
                detector="psi",
                value=0.31,
                threshold=0.2,
                images=400,
                reference_images=9_000,
                window_start=_DAY,
                window_end=_DAY,
                at=_DAY,
            ),
            "edge": DriftAlert(id=_TEXT, slice=_TEXT, value=-1e308, images=2**63 - 1, window_start=_FIRST, at=_LAST),
        },
    ),
}


def plain(record: Any) -> dict[str, Any]:
    """A record as JSON has it: bytes in hex, times in ISO 8601."""
    value: dict[str, Any] = json.loads(json.dumps(asdict(record), default=_json))
    return value


def _json(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value.isoformat())


def write() -> None:
    """Write what is missing."""
    codec = Codec(PackagedSchemas())
    FOLDER.mkdir(exist_ok=True)
    for name, (_, cases) in CASES.items():
        for case, record in cases.items():
            file = FOLDER / f"{avro_files.current(name)}.{case}.bin"
            if not file.exists():
                file.write_bytes(codec.encode(record))
                text = json.dumps(plain(record), indent=1, ensure_ascii=True)
                file.with_suffix(".json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    write()
