"""The one catalogue of topics: name, record, key, partitions, retention."""

from dataclasses import dataclass
from datetime import timedelta

from schemas.records import Lane

_DAY = timedelta(days=1)
RETRY_DELAYS = {"10s": timedelta(seconds=10), "1m": timedelta(minutes=1), "10m": timedelta(minutes=10)}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is created: `record` names the Avro record of its values, `key` says what its keys are.

    `compacted`: the last record of each key stays for good; `retention` is then how long a tombstone is seen.
    """

    name: str
    record: str
    key: str
    partitions: int
    retention: timedelta
    compacted: bool = False


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics under one `prefix` (such as `acme.`), so that several installations share a cluster."""

    prefix: str = ""

    @property
    def online(self) -> str:
        """References people wait for."""
        return f"{self.prefix}images.online"

    @property
    def bulk(self) -> str:
        """References nobody waits for: backfill, replay."""
        return f"{self.prefix}images.bulk"

    @property
    def detections(self) -> str:
        """Results."""
        return f"{self.prefix}detections"

    @property
    def dead_letters(self) -> str:
        """Records that could not be processed."""
        return f"{self.prefix}dead-letters"

    @property
    def batches(self) -> str:
        """What was submitted together."""
        return f"{self.prefix}batches"

    @property
    def deletions(self) -> str:
        """What is to be forgotten."""
        return f"{self.prefix}deletions"

    @property
    def keys(self) -> str:
        """API keys."""
        return f"{self.prefix}keys"

    @property
    def progress(self) -> str:
        """How far workers have taken the lanes."""
        return f"{self.prefix}progress"

    @property
    def audit(self) -> str:
        """Who did what."""
        return f"{self.prefix}audit"

    @property
    def models(self) -> str:
        """Versions of models."""
        return f"{self.prefix}models"

    @property
    def model_status(self) -> str:
        """What workers made of the versions of models."""
        return f"{self.prefix}model-status"

    @property
    def rollouts(self) -> str:
        """How images are shared between versions."""
        return f"{self.prefix}rollouts"

    @property
    def verdicts(self) -> str:
        """What was decided about rollouts."""
        return f"{self.prefix}verdicts"

    @property
    def shadow(self) -> str:
        """Results that no user sees."""
        return f"{self.prefix}detections.shadow"

    @property
    def replays(self) -> str:
        """What is sent again."""
        return f"{self.prefix}replays"

    @property
    def replay_progress(self) -> str:
        """How far replays are."""
        return f"{self.prefix}replay-progress"

    @property
    def drift_baselines(self) -> str:
        """What windows are compared with."""
        return f"{self.prefix}drift-baselines"

    @property
    def drift(self) -> str:
        """Windows that differ from their baseline."""
        return f"{self.prefix}drift"

    @property
    def retries(self) -> dict[str, timedelta]:
        """Retry topic -> how long a record waits in it, in the order in which a record passes through them."""
        return {f"{self.prefix}images.retry.{name}": delay for name, delay in RETRY_DELAYS.items()}

    def lane(self, lane: Lane) -> str:
        """The topic of a lane."""
        return self.online if lane is Lane.ONLINE else self.bulk

    def catalogue(self, partitions: int = 4) -> tuple[Topic, ...]:
        """Every topic; `partitions` is for the lanes and their results, which scale with workers."""
        key = "ImageRef.key, else ImageRef.id"
        return (
            Topic(self.online, "ImageRef", key, partitions, 7 * _DAY),
            Topic(self.bulk, "ImageRef", key, partitions, 30 * _DAY),
            Topic(self.detections, "DetectionResult", key, partitions, 30 * _DAY),
            *(Topic(name, "ImageRef", key, 1, 7 * _DAY) for name in self.retries),
            Topic(self.dead_letters, "DeadLetter", "the original record's key", 1, 90 * _DAY),
            Topic(self.batches, "Batch", "tenant/Batch.id", 1, 30 * _DAY, compacted=True),
            Topic(self.deletions, "Deletion", "Deletion.image_id", 1, 90 * _DAY),
            Topic(self.keys, "ApiKey", "ApiKey.id", 1, 30 * _DAY, compacted=True),
            Topic(self.progress, "WorkerProgress", "topic/partition", 1, _DAY, compacted=True),
            Topic(self.audit, "AuditEvent", "AuditEvent.tenant", 1, 90 * _DAY),
            Topic(self.models, "ModelVersion", "name@version", 1, 30 * _DAY, compacted=True),
            Topic(self.model_status, "ModelStatus", "worker/name@version", 1, _DAY, compacted=True),
            Topic(self.rollouts, "Rollout", "Rollout.name", 1, 30 * _DAY, compacted=True),
            Topic(self.verdicts, "Verdict", "Verdict.name", 1, 90 * _DAY),
            Topic(self.shadow, "DetectionResult", key, partitions, 7 * _DAY),
            Topic(self.replays, "ReplayManifest", "ReplayManifest.id", 1, 90 * _DAY, compacted=True),
            Topic(self.replay_progress, "ReplayProgress", "ReplayProgress.id", 1, 30 * _DAY, compacted=True),
            Topic(self.drift_baselines, "DriftBaseline", "DriftBaseline.id", 1, 30 * _DAY, compacted=True),
            Topic(self.drift, "DriftAlert", "DriftAlert.tenant", 1, 90 * _DAY),
        )
