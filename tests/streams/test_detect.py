"""The detection step without Kafka: wrong answers, sick devices, records beyond their topics, batches that were given up."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from detectors.base import Boxes, Image, ModelInfo
from schemas.codec import Codec, PackagedSchemas
from schemas.errors import BusyError, FatalError, Reason, RejectedError
from schemas.records import DeadLetter, DetectionResult, DetectParameters, ImageRef
from schemas.topics import Topics
from streams.detect import DetectStep
from streams.failures import FailureRouter
from streams.lanes import Part, Run
from streams.ledger import Claim
from streams.models import OneModel
from streams.runs import FetchedRecord

CODEC = Codec(PackagedSchemas())
BAD = 255  # the value of every pixel of an image at fault


@dataclass
class ScriptedDetector:
    """Finds one box an image; does something wrong for an image of BAD pixels."""

    wrong: str = "raise"
    sick: bool = False
    model: ModelInfo = field(default_factory=lambda: ModelInfo("m", "1", "sha256:0", ("cat",)))
    concurrency: int = 1
    max_batch: int = 8

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        count = len(images)
        boxes = Boxes(
            np.arange(count + 1, dtype=np.int32),
            np.zeros((count, 4), np.float32),
            np.ones(count, np.float32),
            np.zeros(count, np.int32),
        )
        if self.sick:
            raise RuntimeError("device lost")
        if all(image.pixels[0, 0, 0] != BAD for image in images):
            return boxes
        match self.wrong:
            case "too few":
                return replace(boxes, offsets=boxes.offsets[:-1])
            case "nan":
                return replace(boxes, xyxy=boxes.xyxy + np.float32("nan"))
            case "class":
                return replace(boxes, class_ids=boxes.class_ids + 7)
            case "numbers":
                return replace(boxes, scores=boxes.scores[:-1])
        raise RuntimeError("odd image")

    def close(self) -> None: ...


class Pictures:
    """Grey images; the uri `bad` gives the image at fault, `busy` an image host that is down."""

    async def load(self, requests: Sequence[Any]) -> list[Image | RejectedError | BusyError]:
        return [self._one(request.uri) for request in requests]

    def _one(self, uri: str) -> Image | RejectedError | BusyError:
        if uri == "busy":
            return BusyError(Reason.FETCH_FAILED, "the host is down")
        return Image(np.full((4, 4, 3), BAD if uri == "bad" else 9, np.uint8))


class Outbox:
    """A publisher that keeps what it is given, and refuses what is beyond its limit."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.codec, self.topics = CODEC, Topics()
        self.max_record_bytes = limit
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []

    def send(self, topic: str, key: bytes | None, value: bytes | None, on_delivery: Any, headers: Any = ()) -> None:
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text or b"") for name, text in headers)
        if size > self.max_record_bytes:
            raise RejectedError(Reason.RECORD_TOO_LARGE, f"{size} bytes")
        self.sent.append((topic, key, value))
        on_delivery(None, None)

    def send_run(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes], on_delivery: Any) -> None:
        for key, value in zip(keys, values, strict=True):
            self.send(topic, key, value, on_delivery)

    @property
    def letters(self) -> list[DeadLetter]:
        return [CODEC.decode(value, DeadLetter) for topic, _, value in self.sent if topic == "dead-letters"]

    def count(self, topic: str) -> int:
        return sum(sent == topic for sent, _, _ in self.sent)


async def outcome(
    uris: Sequence[str], detector: ScriptedDetector | None = None, outbox: Outbox | None = None, **record: Any
) -> tuple[Outbox, int]:
    """Carry one batch through all stages; returns what was sent, and how many batches were settled."""
    outbox, settled = outbox or Outbox(), list[Any]()
    step = DetectStep(
        OneModel(detector or ScriptedDetector()),
        Pictures(),
        outbox,  # type: ignore[arg-type]
        FailureRouter(outbox, "group", lambda: 0),  # type: ignore[arg-type]
        settled.append,
        lambda error: pytest.fail(str(error)),
    )
    part = part_of(uris, **record)
    step.publish(step.infer(await step.prepare([part])))
    return outbox, len(settled)


def part_of(uris: Sequence[str], **record: Any) -> Part:
    given = {"key": b"k", "headers": ()} | record
    records = [
        FetchedRecord(
            "images.online", 0, at, 0, 0, given["key"], CODEC.encode(ImageRef(id=f"i{at}", uri=uri)), given["headers"]
        )
        for at, uri in enumerate(uris)
    ]
    return Part(Run(records, Claim("p", len(records), len(records))), records)


@pytest.mark.parametrize("wrong", ["raise", "too few", "nan", "class", "numbers"])
async def test_a_wrong_answer_costs_the_image_at_fault_alone(wrong: str) -> None:
    outbox, settled = await outcome(["a", "b", "bad", "c", "d"], ScriptedDetector(wrong))
    assert [(letter.image_id, letter.code) for letter in outbox.letters] == [("i2", "detector_failed")]
    assert outbox.count("detections") == 4
    assert settled == 1


async def test_a_whole_batch_of_images_at_fault_is_dead_lettered_while_the_detector_is_well() -> None:
    outbox, _ = await outcome(["bad", "bad"])
    assert [letter.code for letter in outbox.letters] == ["detector_failed"] * 2


async def test_a_sick_detector_ends_the_worker_instead_of_dead_lettering_the_backlog() -> None:
    outbox = Outbox()
    with pytest.raises(FatalError, match="blank image"):
        await outcome(["a", "b"], ScriptedDetector(sick=True), outbox)
    assert outbox.sent == []


async def test_a_model_s_quantised_sibling_does_the_same_work_under_the_same_id() -> None:
    plain = ModelInfo("m", "1", "sha256:0", ("cat",))
    sibling = replace(plain, digest="sha256:8bit", origin="sha256:0")
    other = replace(plain, digest="sha256:1")
    ids, digests = [], []
    for model in (plain, sibling, other):
        outbox, _ = await outcome(["a"], ScriptedDetector(model=model))
        (result,) = [CODEC.decode(value, DetectionResult) for _, _, value in outbox.sent]
        ids.append(result.id)
        digests.append(result.model_digest)
    assert ids[0] == ids[1] != ids[2]
    assert digests == ["sha256:0", "sha256:8bit", "sha256:1"]


async def test_a_batch_that_was_given_up_is_not_sent() -> None:
    outbox, part = Outbox(), part_of(["a", "b"])
    router = FailureRouter(outbox, "g", lambda: 0)  # type: ignore[arg-type]
    step = DetectStep(OneModel(ScriptedDetector()), Pictures(), outbox, router, print, print)  # type: ignore[arg-type]
    work = step.infer(await step.prepare([part]))
    part.run.claim.forgotten = True
    step.publish(work)
    assert outbox.sent == []


@pytest.mark.parametrize(
    ("uri", "record"),
    [
        ("a", {"key": b"k" * 1900}),
        ("bad", {"key": b"k" * 1500}),
        ("bad", {"headers": [("h", b"x" * 3000)]}),
        ("busy", {"key": b"k" * 1800}),
        ("busy", {"headers": [("h", b"x" * 3000)], "key": b"k" * 1500}),
    ],
    ids=["result", "letter with its key twice", "letter with headers", "retry", "retry with headers"],
)
async def test_no_size_of_key_or_headers_stops_the_worker(uri: str, record: dict[str, Any]) -> None:
    outbox, settled = await outcome([uri], outbox=Outbox(limit=2000), **record)
    assert len(outbox.letters) == 1
    assert outbox.letters[0].image_id == "i0"
    assert settled == 1
