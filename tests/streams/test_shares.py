"""A batch whose images go to several versions: each by its own, results in the order of references, shadows after and never instead."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from detectors.base import Image, ModelInfo
from detectors.hosting import Loaded
from schemas.errors import BusyError, Reason, RejectedError
from schemas.records import DetectionResult, ImageRef
from streams.detect import DetectStep
from streams.failures import FailureRouter
from streams.lanes import Part, Run
from streams.ledger import Claim
from streams.models import OneModel
from streams.routes import Route
from streams.runs import FetchedRecord
from streams.work import Seat, Work
from tests.streams.test_detect import CODEC, Outbox, Pictures, ScriptedDetector

FINE = Image(np.full((4, 4, 3), 9, np.uint8))


def loaded(number: int, **script: Any) -> Loaded:
    model = ModelInfo("m", str(number), f"sha256:{number}", ("cat",))
    return Loaded(f"m@{number}", ScriptedDetector(model=model, **script), f"sha256:{number}")


@dataclass
class ScriptedModels:
    """The model column says `1` or `2`, `none`, `busy`, or `1+2` for a shadow."""

    one: Loaded = field(default_factory=lambda: loaded(1))
    two: Loaded = field(default_factory=lambda: loaded(2))

    def seat(self, refs: pa.RecordBatch) -> Loaded | list[Seat | RejectedError | BusyError]:
        return [self._seat(asked) for asked in refs.column("model").to_pylist()]

    def _seat(self, asked: str) -> Seat | RejectedError | BusyError:
        match asked:
            case "none":
                return RejectedError(Reason.MODEL_UNKNOWN, "there is none")
            case "busy":
                return BusyError(Reason.MODEL_UNAVAILABLE, "is being loaded", 1.0)
            case "1+2":
                return Seat(self.one, Route("m@1", "r", "stable", "m@2"), self.two)
        return Seat(self.one if asked == "1" else self.two, Route(f"m@{asked}"))


class Sent(Outbox):
    """An outbox that knows one topic more, and keeps delivery reports until they are let out."""

    held: list[Any] | None = None

    def serves(self, topic: str) -> bool:
        return topic == "elsewhere"

    def send(self, topic: str, key: bytes | None, value: bytes | None, on_delivery: Any, headers: Any = ()) -> None:
        super().send(topic, key, value, lambda *_: None, headers)
        if self.held is None:
            on_delivery(None, None)
        else:
            self.held.append(on_delivery)

    def results(self, topic: str = "detections") -> list[DetectionResult]:
        return [CODEC.decode(value, DetectionResult) for sent, _, value in self.sent if sent == topic]


def part_of(refs: Sequence[ImageRef]) -> Part:
    records = [FetchedRecord("images.online", 0, at, 0, 0, b"k", CODEC.encode(ref), ()) for at, ref in enumerate(refs)]
    return Part(Run(records, Claim("p", len(records), len(records))), records)


def step_of(outbox: Sent, models: Any, settled: list[Work]) -> DetectStep:
    router = FailureRouter(outbox, "group", lambda: 0)  # type: ignore[arg-type]
    return DetectStep(models, Pictures(), outbox, router, settled.append, lambda error: pytest.fail(str(error)))  # type: ignore[arg-type]


async def carried(refs: Sequence[ImageRef], models: Any = None, outbox: Sent | None = None) -> tuple[Sent, list[Work]]:
    outbox, settled = outbox or Sent(), list[Work]()
    step = step_of(outbox, models or ScriptedModels(), settled)
    work = step.infer(await step.prepare([part_of(refs)]))
    step.publish(work)
    if work.shadows:
        step.shadow(work)
    return outbox, settled


def refs_of(*asked: str) -> list[ImageRef]:
    return [ImageRef(id=f"i{at}", uri="a", model=one) for at, one in enumerate(asked)]


async def test_results_of_several_versions_leave_in_the_order_of_their_references() -> None:
    outbox, settled = await carried(refs_of("2", "1", "1", "2", "none", "2", "busy", "1"))
    found = [(result.image_id, result.model_version, result.rollout, result.arm) for result in outbox.results()]
    assert found == [
        (f"i{at}", one, None, None) for at, one in [(0, "2"), (1, "1"), (2, "1"), (3, "2"), (5, "2"), (7, "1")]
    ]
    assert [(letter.image_id, letter.code) for letter in outbox.letters] == [("i4", "model_unknown")]
    assert outbox.count("images.retry.10s") == 1
    assert len(settled) == 1
    assert len(settled[0].submitted_s) == 6


async def test_an_image_at_fault_costs_its_version_and_the_others_nothing() -> None:
    refs = [*refs_of("1", "2"), ImageRef(id="bad", uri="bad", model="2"), ImageRef(id="gone", uri="busy", model="1")]
    outbox, settled = await carried(refs)
    assert [result.image_id for result in outbox.results()] == ["i0", "i1"]
    assert [letter.image_id for letter in outbox.letters] == ["bad"]
    assert len(settled) == 1


async def test_a_version_that_takes_fewer_images_a_call_gets_them_in_several() -> None:
    models = ScriptedModels(two=loaded(2, max_batch=2))
    outbox, _ = await carried(refs_of(*"22222"), models)
    assert len(outbox.results()) == 5


async def test_a_shadow_sees_what_users_have_and_the_batch_is_safe_when_both_are() -> None:
    outbox, settled = Sent(), list[Work]()
    outbox.held = []
    step = step_of(outbox, ScriptedModels(), settled)
    work = step.infer(await step.prepare([part_of(refs_of("1+2", "1", "1+2"))]))
    step.publish(work)
    assert [(result.image_id, result.arm) for result in outbox.results()] == [
        ("i0", "stable"),
        ("i1", None),
        ("i2", "stable"),
    ]
    assert outbox.results("detections.shadow") == []
    for report in outbox.held[:3]:
        report(None, None)
    assert settled == []
    step.shadow(work)
    shadows = outbox.results("detections.shadow")
    told = [(result.image_id, result.model_version, result.rollout, result.arm) for result in shadows]
    assert told == [("i0", "2", "r", "shadow"), ("i2", "2", "r", "shadow")]
    assert not {result.id for result in shadows} & {result.id for result in outbox.results()}
    for report in outbox.held[3:]:
        report(None, None)
    assert settled == [work]


@pytest.mark.parametrize("script", [{"sick": True}, {"wrong": "nan"}])
async def test_a_shadow_that_fails_is_counted_and_costs_nobody(script: dict[str, Any]) -> None:
    refs = [*refs_of("1+2"), ImageRef(id="bad", uri="bad", model="1+2")]
    outbox, settled = await carried(refs, ScriptedModels(one=Loaded("m@1", Lenient(), "1"), two=loaded(2, **script)))
    assert [result.image_id for result in outbox.results()] == ["i0", "bad"]
    assert outbox.count("detections.shadow") == (0 if "sick" in script else 1)
    assert outbox.letters == []
    assert len(settled) == 1


class Lenient(ScriptedDetector):
    """Takes any image."""

    def detect(self, images: Sequence[Any], parameters: Sequence[Any]) -> Any:
        return super().detect([FINE for _ in images], parameters)


async def test_an_image_without_a_result_has_no_shadow() -> None:
    outbox, settled = await carried([ImageRef(id="bad", uri="bad", model="1+2"), *refs_of("1+2")])
    assert [result.image_id for result in outbox.results("detections.shadow")] == ["i0"]
    assert [letter.image_id for letter in outbox.letters] == ["bad"]
    assert len(settled) == 1


async def test_results_go_where_their_references_want_them() -> None:
    wanted = [None, "elsewhere", "nowhere", None, "elsewhere", "images.online"]
    refs = [ImageRef(id=f"i{at}", uri="a", into=into) for at, into in enumerate(wanted)]
    outbox, settled = await carried(refs, OneModel(ScriptedDetector()))
    assert [result.image_id for result in outbox.results()] == ["i0", "i3"]
    assert [result.image_id for result in outbox.results("elsewhere")] == ["i1", "i4"]
    assert [(letter.image_id, letter.code) for letter in outbox.letters] == [
        ("i2", "record_invalid"),
        ("i5", "record_invalid"),
    ]
    assert outbox.count("images.online") == 0
    assert len(settled) == 1


async def test_what_a_replay_makes_is_work_of_its_own() -> None:
    refs = [ImageRef(id="i", uri="a", replay_id=replay, silent=bool(replay)) for replay in (None, "r1", "r2", "r1")]
    outbox, _ = await carried(refs, OneModel(ScriptedDetector()))
    plain, first, second, again = (result.id for result in outbox.results())
    assert first == again
    assert len({plain, first, second}) == 3
    (alone,) = (await carried([ImageRef(id="i", uri="a")], OneModel(ScriptedDetector())))[0].results()
    assert alone.id == plain


async def test_one_model_looks_at_no_image_that_asks_for_nothing_else() -> None:
    models = OneModel(ScriptedDetector())
    for asked in ([None, None], ["m", "m@1"], [None, "m"]):
        batch = pa.RecordBatch.from_pydict({"model": pa.array(asked, pa.string())})
        assert isinstance(models.seat(batch), Loaded)
    other = models.seat(pa.RecordBatch.from_pydict({"model": pa.array(["m", "x"])}))
    assert isinstance(other, list)
    assert [type(one) for one in other] == [Seat, RejectedError]
