"""The packaged Avro schemas: `avro/<Record>.v<N>.avsc`, in the fixed order that gives them their ids without a registry."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

# Append only: a schema's position is its id wherever no registry hands ids out. A new version of a record is a new line.
ORDER: tuple[str, ...] = (
    "ImageRef.v1",
    "DetectionResult.v1",
    "DeadLetter.v1",
    "Batch.v1",
    "Deletion.v1",
    "ApiKey.v1",
    "WorkerProgress.v1",
    "AuditEvent.v1",
    "ImageRef.v2",
    "DetectionResult.v2",
    "ModelVersion.v1",
    "ModelStatus.v1",
    "Rollout.v1",
    "Verdict.v1",
    "ReplayManifest.v1",
    "ReplayProgress.v1",
    "DriftBaseline.v1",
    "DriftAlert.v1",
)


@cache
def text(version: str) -> str:
    """The schema `version` (such as `ImageRef.v1`) as compact JSON."""
    raw = files("schemas").joinpath("avro", f"{version}.avsc").read_text(encoding="utf-8")
    return json.dumps(json.loads(raw), separators=(",", ":"))


def versions(record: str) -> tuple[str, ...]:
    """All versions of a record, oldest first."""
    return tuple(name for name in ORDER if name.rpartition(".")[0] == record)


@cache
def current(record: str) -> str:
    """The newest version of a record: what this release writes and reads as."""
    return versions(record)[-1]


def parsed(version: str) -> dict[str, Any]:
    """The schema as plain JSON values."""
    value: dict[str, Any] = json.loads(text(version))
    return value
