"""`precision = auto`: which precision is taken, and that the choice is remembered and never trusted blindly."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from detectors import precision
from detectors.base import Boxes, Image, ModelInfo
from detectors.precision import Trial, choose, draw, open_fastest
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters


@dataclass
class Scripted:
    """Finds one box, `shift` pixels off its place, until `lasts` calls are done."""

    precision: str
    shift: float = 0.0
    lasts: float = math.inf
    closed: bool = False
    concurrency: int = 1
    max_batch: int = 16

    @property
    def model(self) -> ModelInfo:
        return ModelInfo("scripted", "1", "sha256:0", ("thing",), precision=self.precision)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        self.lasts -= 1
        if self.lasts < 0:
            raise RuntimeError("the device does not do this")
        n = len(images)
        box = np.array([[100, 100, 200, 200]], np.float32) + np.float32(self.shift)
        return Boxes(
            np.arange(n + 1, dtype=np.int32), box.repeat(n, 0), np.full(n, 0.9, np.float32), np.zeros(n, np.int32)
        )

    def close(self) -> None:
        self.closed = True


@dataclass
class Backend:
    """Offers three precisions, and keeps count of what is loaded. Some are `missing` after all, or crash, or last only some calls."""

    shifts: dict[str, float] = field(default_factory=lambda: {"f32": 0.0, "bf16": 0.0, "int8": 0.0})
    where: str = "here"
    missing: set[str] = field(default_factory=set)
    crashing: set[str] = field(default_factory=set)
    lasting: dict[str, int] = field(default_factory=dict)
    loaded: list[Scripted] = field(default_factory=list)

    def load(self, spec: ModelSpec) -> Scripted:
        if spec.precision in self.missing or spec.precision not in self.shifts:
            raise ConfigurationError(f"there is no {spec.precision}")
        if spec.precision in self.crashing:
            raise RuntimeError("the compiler crashed")
        lasts = self.lasting.get(spec.precision, math.inf)
        self.loaded.append(Scripted(spec.precision, self.shifts[spec.precision], lasts))
        return self.loaded[-1]

    def precisions(self, spec: ModelSpec) -> tuple[str, ...]:
        return tuple(self.shifts)

    def place(self, spec: ModelSpec) -> str:
        return self.where


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "model.onnx").write_bytes(b"model")
    return ModelSpec(path=str(tmp_path / "model.onnx"), precision="auto")


def opened(spec: ModelSpec, backend: Backend, directory: Path | None = None) -> Scripted:
    """By a clock that moves a tenth of a second whenever somebody looks."""
    ticks = count()
    detector = open_fastest(spec, backend, directory, now=lambda: next(ticks) / 10)
    assert isinstance(detector, Scripted)
    return detector


def trial(precision: str, images_per_s: float, *, holds: bool = True) -> Trial:
    return Trial(precision, images_per_s, 1.0 if holds else 0.5, 60, holds)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], "f32"),
        ([trial("bf16", 250)], "bf16"),
        ([trial("bf16", 250), trial("int8", 300)], "int8"),
        ([trial("bf16", 250), trial("int8", 300, holds=False)], "bf16"),
        ([trial("bf16", 102)], "f32"),
        ([trial("bf16", 50), trial("int8", 60)], "f32"),
    ],
)
def test_the_fastest_that_holds_is_taken_if_it_is_worth_it(others: list[Trial], chosen: str) -> None:
    assert choose([trial("f32", 100), *others]) == chosen


def test_what_was_chosen_is_said_with_its_figures_and_the_others_are_closed(
    spec: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend({"f32": 0.0, "int8": 80.0})
    with caplog.at_level(logging.INFO, "detectors.precision"):
        detector = opened(spec, backend)
    assert detector.model.precision == "f32", "int8 finds its boxes elsewhere, however fast it is"
    assert [made.closed for made in backend.loaded] == [False, True]
    assert "precision auto: f32" in caplog.messages[-1]
    assert "int8" in caplog.messages[-1]
    assert "0.0% of 12 boxes alike, which is not enough" in caplog.messages[-1]


def test_the_next_start_loads_one_precision(spec: ModelSpec, tmp_path: Path) -> None:
    first, second = Backend(), Backend()
    chosen = opened(spec, first, tmp_path / "engine").model.precision
    assert len(first.loaded) == 3
    assert opened(spec, second, tmp_path / "engine").model.precision == chosen
    assert [made.precision for made in second.loaded] == [chosen]


def test_alike_in_too_few_boxes_is_said_not_to_be_enough(spec: ModelSpec, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "detectors.precision"):
        assert opened(spec, Backend()).model.precision == "f32"
    assert "100.0% of 6 boxes alike, which is not enough" in caplog.messages[-1]


def test_another_place_or_model_or_way_to_run_is_measured_anew(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(spec, Backend(), tmp_path)
    opened(spec, other := Backend(where="there"), tmp_path)
    assert len(other.loaded) == 3
    Path(spec.path).write_bytes(b"another model")
    opened(spec, changed := Backend(), tmp_path)
    assert len(changed.loaded) == 3
    opened(replace(spec, compiled=True), compiled := Backend(), tmp_path)
    assert len(compiled.loaded) == 3
    monkeypatch.setattr(precision, "usable_cores", lambda: 1000)
    opened(spec, wider := Backend(), tmp_path)
    assert len(wider.loaded) == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"chosen": 3}', '{"chosen": "f8"}', '{"chosen": []}']
)
def test_a_broken_memory_is_as_none_and_is_written_anew(spec: ModelSpec, tmp_path: Path, content: str) -> None:
    opened(spec, Backend(), tmp_path / "engine")
    (kept,) = (tmp_path / "engine").iterdir()
    kept.write_text(content)
    opened(spec, backend := Backend(), tmp_path / "engine")
    assert len(backend.loaded) == 3
    assert json.loads(kept.read_text())["chosen"] in {"f32", "bf16", "int8"}


def test_a_memory_that_cannot_be_written_costs_nothing_else(spec: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("a file where a directory should be")
    assert opened(spec, Backend(), tmp_path / "engine").model.precision


def test_a_choice_that_is_no_more_is_made_anew(spec: ModelSpec, tmp_path: Path) -> None:
    opened(spec, Backend(), tmp_path / "engine")
    (kept,) = (tmp_path / "engine").iterdir()
    kept.write_text('{"chosen": "int8"}')
    backend = Backend(missing={"int8"})
    assert opened(spec, backend, tmp_path / "engine").model.precision != "int8"
    assert json.loads(kept.read_text())["chosen"] != "int8"


def test_a_choice_that_is_no_longer_on_offer_is_not_loaded(spec: ModelSpec, tmp_path: Path) -> None:
    opened(spec, Backend(), tmp_path / "engine")
    (kept,) = (tmp_path / "engine").iterdir()
    kept.write_text('{"chosen": "int8"}')
    opened(spec, backend := Backend({"f32": 0.0, "bf16": 0.0}), tmp_path / "engine")
    assert [made.precision for made in backend.loaded] == ["f32", "bf16"]


@pytest.mark.parametrize("calls", [0, 1])
def test_a_precision_that_fails_is_left_out_and_closed(
    spec: ModelSpec, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend(crashing={"bf16"}, lasting={"int8": calls})
    assert opened(spec, backend).model.precision == "f32"
    assert [(made.precision, made.closed) for made in backend.loaded] == [("f32", False), ("int8", True)]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "precision auto: bf16 is left out: the compiler crashed",
        "precision auto: int8 is left out: the device does not do this",
    ]


def test_where_the_first_precision_fails_all_are_given_back(spec: ModelSpec) -> None:
    backend = Backend(lasting={"f32": 1})
    with pytest.raises(RuntimeError, match="does not do this"):
        opened(spec, backend)
    assert [made.closed for made in backend.loaded] == [True] * 3


def test_a_precision_that_does_not_load_is_left_out_but_the_first_must(spec: ModelSpec) -> None:
    assert opened(spec, Backend(missing={"bf16", "int8"})).model.precision == "f32"
    with pytest.raises(ConfigurationError):
        opened(spec, Backend(missing={"f32"}))


def test_where_there_is_no_choice_nothing_is_measured(spec: ModelSpec, tmp_path: Path) -> None:
    opened(spec, backend := Backend({"int8": 0.0}), tmp_path / "engine")
    assert [made.precision for made in backend.loaded] == ["int8"]
    assert not (tmp_path / "engine").exists()


def test_probes_are_the_same_everywhere() -> None:
    np.testing.assert_array_equal(draw(3), draw(3))
    assert (draw(0) != draw(1)).any()
    assert (draw(0).shape, str(draw(0).dtype)) == ((480, 640, 3), "uint8")
