"""Results and failures of two versions under a rollout, as workers would write them, at moments that the test chooses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.arms import choose
from schemas.codec import Codec
from schemas.records import DeadLetter, Detection, DetectionResult, ImageRef
from schemas.rollouts import Arm, CanaryGuard, Rollout, RolloutKind

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CANARY = Rollout(
    id="r1",
    name="yolo",
    kind=RolloutKind.CANARY,
    stable="yolo@1",
    candidate="yolo@2",
    steps=(0.2, 0.5),
    share=0.2,
    shadow_share=0.5,
    guard=CanaryGuard(window_s=60.0, min_samples=20),
    started_at=NOON,
    changed_at=NOON,
    window_start=NOON,
    judged_until=NOON,
)

Boxes = tuple[Detection, ...]
Model = Callable[[int], Boxes | None]
"""What a version finds in image number so-and-so; None: it fails."""


def after(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def box(label: str = "car", x1: float = 10.0, score: float = 0.9) -> Detection:
    """A box of 100 x 100 pixels."""
    return Detection(label=label, class_id=0, score=score, x1=x1, y1=10.0, x2=x1 + 100, y2=110.0)


@dataclass(frozen=True)
class Shot:
    """What workers write about one image."""

    results: tuple[DetectionResult, ...] = ()
    shadows: tuple[DetectionResult, ...] = ()
    letters: tuple[DeadLetter, ...] = ()


class Fleet:
    """Workers that run both versions. `latency_ms`: of the stable version and the candidate."""

    def __init__(
        self, codec: Codec, stable: Model, candidate: Model, latency_ms: tuple[float, float] = (50.0, 50.0)
    ) -> None:
        self._codec, self._models, self._latencies = codec, (stable, candidate), latency_ms

    def shots(self, rollout: Rollout, numbers: Sequence[int], start: datetime, end: datetime) -> Iterator[Shot]:
        """Images evenly over a stretch of time, each of a camera of its own."""
        for place, number in enumerate(numbers):
            yield self.shot(rollout, number, start + (end - start) * place / len(numbers))

    def shot(self, rollout: Rollout, number: int, at: datetime) -> Shot:
        """One image."""
        choice = choose(rollout, f"camera-{number}")
        shadow = choice.shadow and self._result(rollout, number, choice.shadow, Arm.SHADOW, at)
        shadows = (shadow,) if shadow else ()
        result = self._result(rollout, number, choice.model, choice.arm, at)
        if result is None:
            return Shot(shadows=shadows, letters=(self._letter(rollout, number, at),))
        return Shot((result,), shadows)

    def _result(self, rollout: Rollout, number: int, model: str, arm: Arm, at: datetime) -> DetectionResult | None:
        which = 0 if model == rollout.stable else 1
        found = self._models[which](number)
        if found is None:
            return None
        name, _, version = model.partition("@")
        return DetectionResult(
            id=f"{model}/{number}",
            image_id=f"image-{number}",
            uri="file:///a.jpg",
            key=f"camera-{number}",
            model_name=name,
            model_version=version,
            detections=found,
            submitted_at=at - timedelta(milliseconds=self._latencies[which]),
            completed_at=at,
            rollout=rollout.id,
            arm=arm,
        )

    def _letter(self, rollout: Rollout, number: int, at: datetime) -> DeadLetter:
        ref = ImageRef(id=f"image-{number}", uri="file:///a.jpg", key=f"camera-{number}", model=rollout.name)
        return DeadLetter(
            code="detector_failed",
            message="it broke",
            stage="detect",
            image_id=ref.id,
            value=self._codec.encode(ref),
            source_topic="images.online",
            source_offset=number,
            failed_at=at,
        )
