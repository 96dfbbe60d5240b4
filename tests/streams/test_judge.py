"""Rollouts on a real Kafka, judged by themselves: event time is what the test writes, and nobody sleeps."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image as Pillow

from detectors.base import Image
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.models import ModelVersion, Stage
from schemas.records import Detection, DetectionResult, DetectParameters
from schemas.rollouts import CanaryGuard, Decision, Rollout, RolloutState, Verdict
from schemas.topics import Topics
from streams.fold import Latest
from streams.judge import Judge
from streams.judge_policy import JudgePolicy
from streams.rollout_ledger import Change, Known, RolloutLedger
from streams.rollouts import Plan, aborted, paused, started
from tests.support.data import ROOT
from tests.support.deliveries import eventually
from tests.support.kafka import read_topic
from tests.support.rollouts import NOON, Boxes, Fleet, Model, after, box

pytestmark = pytest.mark.kafka

PICTURES = sorted((ROOT / "infra" / "demo_pictures" / "images").glob("*"))
POLICY = JudgePolicy(lateness_s=5.0, follow_s=0.05)
PLAN = Plan(candidate="m@2", steps=(0.3, 0.6), shadow_share=0.5, guard=CanaryGuard(window_s=60.0, min_samples=20))
ONE = ModelVersion(name="m", version="1", stage=Stage.STABLE)
TWO = ModelVersion(name="m", version="2")


class Course:
    """A canary from `m@1` to `m@2` on a log of its own, minute after minute."""

    def __init__(self, ledger: RolloutLedger, publisher: Publisher, stable: Model, candidate: Model) -> None:
        self.ledger, self._publisher = ledger, publisher
        self._fleet = Fleet(publisher.codec, stable, candidate)
        for version in (ONE, TWO):
            publisher.put(publisher.topics.models, version.reference, version).result(60)
        begin = ledger.change(lambda known: Change(started(PLAN, "r1", known.versions, None, NOON)))
        assert begin.rollout is not None
        self.minute, self.rollout, self.rollouts = 0, begin.rollout, Latest(Rollout)

    def write_minute(self, images: int = 200) -> None:
        """What workers write in the next minute, and enough behind it that it is known to be over."""
        start, topics, sent = after(60 * self.minute), self._publisher.topics, []
        self.minute += 1
        numbers = range(1000 * self.minute, 1000 * self.minute + images)
        for shot in self._fleet.shots(self.rollout, numbers, start, after(60 * self.minute)):
            sent += [self._publisher.put(topics.detections, each.key, each) for each in shot.results]
            sent += [self._publisher.put(topics.shadow, each.key, each) for each in shot.shadows]
            sent += [self._publisher.put(topics.dead_letters, each.image_id, each) for each in shot.letters]
        later = after(60 * self.minute + POLICY.lateness_s)
        other = DetectionResult(id=f"x{self.minute}", image_id="x", uri="file:///x", key="x", completed_at=later)
        sent.append(self._publisher.put(topics.detections, "x", other))
        for receipt in sent:
            receipt.result(60)

    def judged(self) -> Rollout:
        """The rollout once all that was written has been judged."""
        eventually(self._is_judged, f"minute {self.minute} judged", timeout_s=60)
        return self.rollout

    def play(self) -> Rollout:
        """Minute after minute until it ends."""
        while self.rollout.live:
            assert self.minute < 5, "it never ends"
            self.write_minute()
            self.judged()
        return self.rollout

    def verdicts(self) -> list[Verdict]:
        """All there are."""
        topic, codec = self._publisher.topics.verdicts, self._publisher.codec
        return [codec.decode(message.value(), Verdict) for message in read_topic(self.ledger.connection, topic)]

    def _is_judged(self) -> bool:
        self.rollout = self.rollouts.get("m") or self.rollout
        return self.rollout.judged_until == after(60 * self.minute)


@pytest.fixture
def ledger(connection: KafkaConnection, codec: Codec, topics: Topics, group: str) -> RolloutLedger:
    return RolloutLedger(connection, codec, topics, group)


@contextmanager
def judging(course: Course, judges: int = 1) -> Iterator[None]:
    """So many judges at work, and the course follows what they do."""
    stop = threading.Event()
    runs = [course.ledger.follower(course.rollouts).run, *(Judge(course.ledger, POLICY).run for _ in range(judges))]
    threads = [threading.Thread(target=run, args=(stop,)) for run in runs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def damaged(path: Path, target: Path) -> Path:
    """The network with noise on its weights: as large, as fast, and it never raises."""
    model, random = onnx.load(path), np.random.default_rng(7)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim == 4:
            noisy = values + random.normal(0, 0.35 * values.std(), values.shape).astype(values.dtype)
            weight.CopyFrom(numpy_helper.from_array(noisy, weight.name))
    onnx.save(model, target)
    return target


def found(path: Path, pictures: Sequence[Path]) -> list[Boxes]:
    """What a model finds in each picture."""
    detector = open_detector(ModelSpec(path=str(path), backend="openvino", precision="f32"))
    images = [Image(np.asarray(Pillow.open(file).convert("RGB"))) for file in pictures]
    boxes = detector.detect(images, [DetectParameters()] * len(images))
    detector.close()
    rows = zip(boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.class_ids.tolist(), strict=True)
    flat = [
        Detection(label=str(kind), class_id=kind, score=score, x1=box[0], y1=box[1], x2=box[2], y2=box[3])
        for box, score, kind in rows
    ]
    return [tuple(flat[first:end]) for first, end in pairwise(boxes.offsets.tolist())]


def test_a_canary_to_a_damaged_model_stops_by_itself_on_disagreement_alone(
    ledger: RolloutLedger, publisher: Publisher, tmp_path: Path
) -> None:
    healthy = ROOT / "detectors" / "models" / "codes.onnx"
    seen = [found(path, PICTURES) for path in (healthy, damaged(healthy, tmp_path / "damaged.onnx"))]
    stable, candidate = (lambda number, boxes=boxes: boxes[number % len(boxes)] for boxes in seen)
    course = Course(ledger, publisher, stable, candidate)
    with judging(course):
        ended = course.play()
    (verdict,) = course.verdicts()
    assert (ended.state, ended.share, ended.step) == (RolloutState.ROLLED_BACK, 0.0, 0)
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["disagreement"]
    assert (verdict.stable.failures, verdict.candidate.failures) == (0, 0)
    assert verdict.candidate.p95_ms == pytest.approx(verdict.stable.p95_ms, rel=0.03)
    assert ledger.read().versions == {"m@1": ONE, "m@2": TWO}


def test_a_canary_to_an_equal_model_promotes_and_of_two_judges_one_decides(
    ledger: RolloutLedger, publisher: Publisher
) -> None:
    course = Course(ledger, publisher, fine, fine)
    with judging(course, judges=2):
        ended = course.play()
    assert (ended.state, ended.share) == (RolloutState.PROMOTED, 1.0)
    verdicts = course.verdicts()
    assert [(each.decision, each.window_end) for each in verdicts] == [
        (Decision.ADVANCE, after(60)),
        (Decision.PROMOTE, after(120)),
    ]
    assert [each.share for each in verdicts] == [0.3, 0.6]
    stages = {reference: version.stage for reference, version in ledger.read().versions.items()}
    assert stages == {"m@1": Stage.CANDIDATE, "m@2": Stage.STABLE}


def test_a_judge_that_comes_later_goes_on_where_the_first_one_was(ledger: RolloutLedger, publisher: Publisher) -> None:
    """The second minute is too small, and is judged with the third, by somebody who saw neither being written."""
    course = Course(ledger, publisher, fine, fine)
    with judging(course):
        course.write_minute()
        assert course.judged().step == 1
        course.write_minute(images=20)
        assert course.judged().window_start == after(60)
    course.write_minute()
    with judging(course):
        assert course.judged().state is RolloutState.PROMOTED
    last = course.verdicts()[-1]
    assert (last.window_start, last.window_end) == (after(60), after(180))
    assert last.stable.results + last.candidate.results == 220


def test_whoever_began_later_writes_and_whoever_was_overtaken_decides_anew(
    ledger: RolloutLedger, publisher: Publisher
) -> None:
    """An operator aborts while a judge is about to write: the abort stands."""
    course = Course(ledger, publisher, fine, fine)
    asked: list[RolloutState] = []

    def pause(known: Known) -> Change:
        rollout = known.rollouts["m"]
        asked.append(rollout.state)
        if len(asked) == 1:
            ledger.change(lambda now: Change(aborted(now.rollouts["m"], "by hand", after(1))))
        return Change(paused(rollout, after(2)) if rollout.live else None)

    assert ledger.change(pause) == Change()
    assert asked == [RolloutState.RUNNING, RolloutState.ABORTED]
    assert ledger.read().rollouts["m"] == replace(
        course.rollout, state=RolloutState.ABORTED, share=0.0, reason="by hand", changed_at=after(1)
    )


def fine(number: int) -> Boxes:
    """A box or two."""
    return tuple(box(x1=200.0 * place) for place in range(1 + number % 2))
