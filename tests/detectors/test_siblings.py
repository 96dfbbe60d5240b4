"""An 8-bit sibling is taken only where a report vouches for these very files."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from detectors.parity_report import ParityReport, report_path, write_parity_report
from detectors.siblings import find_quantised, trace, vouched_for
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    for name in ("yolo.onnx", "yolo.int8.xml", "yolo.int8.bin"):
        (tmp_path / name).write_text(name)
    spec = ModelSpec(path=str(tmp_path / "yolo.onnx"))
    report(spec)
    return spec


def sibling_of(spec: ModelSpec) -> Path:
    return Path(spec.path).with_name("yolo.int8.xml")


def report(spec: ModelSpec, **changes: object) -> None:
    digest = "sha256:" + hashlib.sha256(b"yolo.int8.xmlyolo.int8.bin").hexdigest()
    figures = dict.fromkeys(("images", "compared", "defects"), 1) | dict.fromkeys(("iou", "score", "share"), 0.1)
    figures |= {"worst_iou": 1.0, "worst_score_drift": 0.0}
    said = {"source": read_model(spec).digest, "digest": digest, "holds": True, **figures, **changes}
    write_parity_report(sibling_of(spec), ParityReport(**said))  # type: ignore[arg-type]


def vouched(spec: ModelSpec) -> bool:
    return vouched_for(spec, read_model(spec))


def test_a_sibling_that_held_is_vouched_for_and_goes_by_the_model_s_name(spec: ModelSpec) -> None:
    assert vouched(spec)
    sibling = find_quantised(spec)
    assert Path(sibling.path).name == "yolo.int8.xml"
    assert (sibling.model_name, sibling.precision) == ("yolo", "int8")


@pytest.mark.parametrize("changes", [{"holds": False}, {"holds": None}, {"source": "sha256:0"}, {"digest": "sha256:0"}])
def test_a_report_that_does_not_fit_vouches_for_nothing(spec: ModelSpec, changes: dict[str, object]) -> None:
    report(spec, **changes)
    assert not vouched(spec)


@pytest.mark.parametrize("content", [None, "", "[]", "null", '{"holds": true}'])
def test_without_a_readable_report_nothing_is_vouched_for(spec: ModelSpec, content: str | None) -> None:
    path = report_path(sibling_of(spec))
    path.unlink() if content is None else path.write_text(content)
    assert not vouched(spec)


def test_a_changed_weight_is_found_out(spec: ModelSpec) -> None:
    Path(spec.path).with_name("yolo.int8.bin").write_text("other weights")
    assert not vouched(spec)


def test_a_pin_lets_no_other_bytes_run(spec: ModelSpec) -> None:
    pinned = replace(spec, digest=read_model(spec).digest)
    assert not vouched(pinned)
    with pytest.raises(ConfigurationError, match="pinned by digest"):
        find_quantised(pinned)


def test_no_sibling_no_choice(spec: ModelSpec) -> None:
    sibling_of(spec).unlink()
    assert not vouched(spec)
    with pytest.raises(ConfigurationError, match="sightstream models export"):
        find_quantised(spec)


def test_the_trace_changes_with_sibling_and_report(spec: ModelSpec) -> None:
    seen = {trace(spec)}
    os.utime(sibling_of(spec), (1, 1))
    seen.add(trace(spec))
    report_path(sibling_of(spec)).unlink()
    seen.add(trace(spec))
    sibling_of(spec).unlink()
    seen.add(trace(spec))
    assert len(seen) == 4
