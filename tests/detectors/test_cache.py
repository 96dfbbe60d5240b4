"""Known results: the same boxes as without a cache, inferred once, never those of another model or of other parameters."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import Boxes, Image, ModelInfo
from detectors.cache import CachedDetector, MemoryStore, Store
from detectors.curve import LatencyCurve, LearnedCurve, PacedDetector
from detectors.fake import POISON, FakeDetector, PoisonedError
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.support.deliveries import eventually

SPEC = ModelSpec(path="fake")
DEFAULTS = DetectParameters()


class CountingDetector(FakeDetector):
    """The fake detector; says which images it was given. `gate` holds it up while it is cleared."""

    def __init__(self, spec: ModelSpec = SPEC, model: ModelInfo | None = None) -> None:
        super().__init__(spec)
        self.told = model or super().model
        self.inferred: list[str] = []
        self.curve = LearnedCurve(LatencyCurve(((1, 1.0),)))
        self.gate = threading.Event()
        self.gate.set()

    @property
    def model(self) -> ModelInfo:
        return self.told

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        self.inferred += [image.sha256 for image in images]
        assert self.gate.wait(10)
        return super().detect(images, parameters)


def cached(detector: CountingDetector, *stores: Store, spec: ModelSpec = SPEC) -> CachedDetector:
    return CachedDetector(detector, spec, stores or (MemoryStore(1_000_000),))


def image(name: str, shade: int = 7) -> Image:
    return Image(np.full((32, 48, 3), shade, np.uint8), sha256=name)


def assert_same(left: Boxes, right: Boxes) -> None:
    for one, other in zip(
        (left.offsets, left.xyxy, left.scores, left.class_ids),
        (right.offsets, right.xyxy, right.scores, right.class_ids),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_an_image_that_comes_again_is_not_inferred_again() -> None:
    detector = CountingDetector()
    caching = cached(detector)
    images = [image("a", 1), image("b", 2), image("a", 1)]
    first = caching.detect(images, [DEFAULTS] * 3)
    second = caching.detect(images[::-1], [DEFAULTS] * 3)
    assert sorted(detector.inferred) == ["a", "b"]
    assert_same(first, FakeDetector(SPEC).detect(images, [DEFAULTS] * 3))
    assert_same(second, FakeDetector(SPEC).detect(images[::-1], [DEFAULTS] * 3))


def test_an_image_without_a_hash_is_inferred_always() -> None:
    detector = CountingDetector()
    caching = cached(detector)
    for _ in range(2):
        caching.detect([image(""), image("")], [DEFAULTS] * 2)
    assert detector.inferred == [""] * 4


def test_no_images_give_no_boxes() -> None:
    assert len(cached(CountingDetector()).detect([], [])) == 0


@pytest.mark.parametrize(
    "wanted",
    [
        DetectParameters(confidence=0.5),
        DetectParameters(iou=0.3),
        DetectParameters(max_detections=1),
        DetectParameters(classes=(1,)),
        DetectParameters(classes=()),
    ],
)
def test_other_parameters_are_other_results(wanted: DetectParameters) -> None:
    detector = CountingDetector()
    caching = cached(detector)
    caching.detect([image("a")], [DEFAULTS])
    boxes = caching.detect([image("a"), image("a")], [wanted, DEFAULTS])
    assert detector.inferred == ["a", "a"]
    assert_same(boxes, FakeDetector(SPEC).detect([image("a"), image("a")], [wanted, DEFAULTS]))


def test_a_request_that_says_the_default_shares_the_result_of_one_that_does_not() -> None:
    detector = CountingDetector()
    caching = cached(detector)
    caching.detect([image("a")], [DEFAULTS])
    caching.detect([image("a")], [DetectParameters(confidence=SPEC.confidence, iou=SPEC.iou)])
    assert detector.inferred == ["a"]


@pytest.mark.parametrize(
    "change",
    [{"digest": "sha256:2"}, {"precision": "bf16"}, {"backend": "other"}, {"device": "GPU"}, {"canvas": (320, 320)}],
    ids=lambda change: next(iter(change)),
)
def test_another_model_never_sees_these_entries(change: dict[str, str]) -> None:
    store = MemoryStore(1_000_000)
    old = CountingDetector()
    cached(old, store).detect([image("a")], [DEFAULTS])
    new = CountingDetector(model=replace(old.model, **change))  # type: ignore[arg-type]  # fields of several types
    cached(new, store).detect([image("a")], [DEFAULTS])
    assert new.inferred == ["a"]


def test_another_default_threshold_never_sees_these_entries() -> None:
    store, detector = MemoryStore(1_000_000), CountingDetector()
    cached(detector, store).detect([image("a")], [DEFAULTS])
    cached(detector, store, spec=replace(SPEC, confidence=0.9)).detect([image("a")], [DEFAULTS])
    assert detector.inferred == ["a", "a"]


def test_what_is_in_flight_in_another_batch_is_waited_for() -> None:
    detector = CountingDetector()
    caching = cached(detector)
    detector.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(caching.detect, [image("a"), image("b")], [DEFAULTS] * 2)
        eventually(lambda: len(detector.inferred) == 2, "the first batch is inferred")
        second = pool.submit(caching.detect, [image("b"), image("c")], [DEFAULTS] * 2)
        eventually(lambda: len(detector.inferred) == 3, "of the second batch only what is new")
        detector.gate.set()
        boxes = [first.result(10), second.result(10)]
    assert detector.inferred == ["a", "b", "c"]
    for found, names in zip(boxes, ("ab", "bc"), strict=True):
        assert_same(found, FakeDetector(SPEC).detect([image(name) for name in names], [DEFAULTS] * 2))


def test_two_batches_that_wait_for_each_other_both_end() -> None:
    caching = cached(CountingDetector())
    batches = [[image(str(name % 7)) for name in range(start, start + 5)] for start in range(40)]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(caching.detect, batch, [DEFAULTS] * len(batch)) for batch in batches]
        assert all(len(one.result(20)) == 5 for one in done)


def test_a_failed_batch_is_remembered_by_nobody_and_costs_a_waiting_one_nothing() -> None:
    detector = CountingDetector()
    caching = cached(detector)
    poisoned = Image(np.full((8, 8, 3), POISON, np.uint8), sha256="bad")
    detector.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(caching.detect, [image("a"), poisoned], [DEFAULTS] * 2)
        eventually(lambda: len(detector.inferred) == 2, "the first batch is inferred")
        waiting = pool.submit(caching.detect, [image("a")], [DEFAULTS])
        detector.gate.set()
        with pytest.raises(PoisonedError):
            failing.result(10)
        assert len(waiting.result(10)) == 1
    assert detector.inferred == ["a", "bad", "a"]
    with pytest.raises(PoisonedError):
        caching.detect([poisoned], [DEFAULTS])


def test_what_a_later_store_knows_the_earlier_one_learns() -> None:
    near, far, detector = MemoryStore(1_000_000), MemoryStore(1_000_000), CountingDetector()
    cached(detector, far).detect([image("a")], [DEFAULTS])
    cached(detector, near, far).detect([image("a")], [DEFAULTS])
    boxes = cached(detector, near).detect([image("a")], [DEFAULTS])
    assert detector.inferred == ["a"]
    assert_same(boxes, FakeDetector(SPEC).detect([image("a")], [DEFAULTS]))


def test_only_calls_that_are_made_teach_the_curve() -> None:
    clock = iter(float(second) for second in range(100))
    paced = PacedDetector(CountingDetector(), LatencyCurve(((1, 1000.0),)), lambda: next(clock))
    caching = CachedDetector(paced, SPEC, [MemoryStore(1_000_000)])
    for _ in range(50):
        caching.detect([image("a"), image("a")], [DEFAULTS] * 2)
    assert caching.curve.now.ms(1) == 1000.0


@pytest.mark.parametrize("value", [np.nan, 1e9])
def test_an_entry_that_no_model_of_these_labels_can_have_found_counts_as_none(value: float) -> None:
    store, detector = MemoryStore(1_000_000), CountingDetector()
    caching = cached(detector, store)
    caching.detect([image("a")], [DEFAULTS])
    (key,) = store._entries
    rows = len(store._entries[key]) // 24
    boxes = np.full(4 * rows, value, np.float32).tobytes() + np.ones(rows, np.float32).tobytes()
    store.put({key: boxes + np.full(rows, 99 if value > 1 else 0, np.int32).tobytes()})
    caching.detect([image("a")], [DEFAULTS])
    assert detector.inferred == ["a", "a"]


class DamagedStore(MemoryStore):
    """Gives back one byte less than it was given."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [value and value[:-1] for value in super().get(keys)]


def test_an_entry_that_cannot_be_boxes_counts_as_none() -> None:
    detector = CountingDetector()
    caching = cached(detector, DamagedStore(1_000_000))
    for _ in range(2):
        caching.detect([image("a")], [DEFAULTS])
    assert detector.inferred == ["a", "a"]


def test_the_memory_store_forgets_what_was_not_used_for_longest() -> None:
    entry = len(b"k1") + 100 + 250
    store = MemoryStore(3 * entry)
    for key in (b"k1", b"k2", b"k3"):
        store.put({key: bytes(100)})
    store.get([b"k1"])
    store.put({b"k4": bytes(100)})
    assert [value is not None for value in store.get([b"k1", b"k2", b"k3", b"k4"])] == [True, False, True, True]


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.integers(0, 3000)), max_size=60), st.integers(0, 5000))
def test_the_memory_store_never_holds_more_than_its_bound(puts: list[tuple[bytes, int]], bound: int) -> None:
    store = MemoryStore(bound)
    for key, size in puts:
        store.put({key: bytes(size)})
        held = sum(len(key) + len(value) + 250 for key, value in store._entries.items())
        assert held == store._bytes <= bound
