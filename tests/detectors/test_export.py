"""Exports: what they keep of a model, what they refuse, and that the report beside them is about them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from detectors import export as exporting
from detectors import export_openvino
from detectors.export import Exported, ExportRequest, export_model
from detectors.export_graph import Graph, decoding_part
from detectors.golden import draw_golden_images
from detectors.openvino_library import ov
from detectors.parity_report import read_parity_report, report_path
from detectors.parity_run import check_parity, find_subjects
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError
from tests.support.deep_yolo import write_deep_yolo
from tests.support.images import encode, photograph
from tests.support.models import LABELS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_deep_yolo(tmp_path / "deep.onnx")


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def write_pictures(directory: Path) -> Path:
    """Nine pictures and one file that is none."""
    directory.mkdir()
    for number in range(9):
        (directory / f"{number}.png").write_bytes(encode(photograph(number, 320, 200 + 10 * number), "PNG"))
    (directory / "9.png").write_bytes(b"no image")
    return directory


def export(source: Path, target: str, **options: Any) -> Exported:
    return export_model(ExportRequest(source=source, target=target, **options), ImagePolicy())  # type: ignore[arg-type]


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file()}


def test_ir_keeps_what_the_model_says_of_itself(source: Path) -> None:
    exported = export(source, "openvino")
    assert files(source.parent) == {"deep.onnx", "deep.xml", "deep.bin", "deep.xml.parity.json"}
    detector = open_detector(ModelSpec(path=str(exported.path), precision="f32"))
    assert (detector.model.labels, detector.model.canvas) == (LABELS, (256, 320))
    detector.close()


def test_the_report_is_about_these_files_and_says_what_was_compared(source: Path) -> None:
    exported = export(source, "openvino")
    report = read_parity_report(exported.path)
    assert report == exported.report
    assert report.source == read_model(ModelSpec(path=str(source))).digest
    assert report.digest == read_model(ModelSpec(path=str(exported.path))).digest
    assert report.holds
    assert (report.images, report.defects) == (11, 0)
    assert report.compared > 10


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"holds": true}'])
def test_a_report_that_cannot_be_read_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        report_path(tmp_path / "deep.xml").write_text(content)
    assert read_parity_report(tmp_path / "deep.xml") is None


def test_half_precision_keeps_input_output_and_decoding_in_float(source: Path) -> None:
    exported = export(source, "onnx", precision="f16")
    assert exported.path.name == "deep.fp16.onnx"
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["first.half"] == kinds["second.half"] == onnx.TensorProto.FLOAT16
    assert kinds["last"] == kinds["spread"] == kinds["scales"] == onnx.TensorProto.FLOAT
    ends = (*model.graph.input, *model.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {onnx.TensorProto.FLOAT}
    assert exported.report.holds
    assert 0 < exported.report.worst_score_drift < 0.01


def test_every_backend_reads_the_half_model_alike(source: Path) -> None:
    half = export(source, "onnx", precision="f16").path
    subjects = find_subjects(ModelSpec(path=str(half), precision="f32"))
    images = {str(seed): draw_golden_images()["golden-97x61"] for seed in range(2)}
    assert all(comparison.holds for comparison in check_parity(subjects, images))


def test_ir_in_half_precision_has_half_the_weights(source: Path) -> None:
    full, half = export(source, "openvino").path, export(source, "openvino", precision="f16").path
    assert half.name == "deep.fp16.xml"
    assert half.with_suffix(".bin").stat().st_size < 0.7 * full.with_suffix(".bin").stat().st_size


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    directory = tmp_path_factory.mktemp("quantised")
    pictures = write_pictures(directory / "pictures")
    source = write_deep_yolo(directory / "deep.onnx")
    return export(source, "openvino", precision="int8", calibration=pictures)


def test_int8_is_quantised_but_for_the_decoding(quantised: Exported) -> None:
    assert quantised.path.name == "deep.int8.xml"
    network = ov.Core().read_model(quantised.path)
    convolutions = {
        node.get_friendly_name().partition("/")[0]: node.input_value(1).get_node().get_type_name()
        for node in network.get_ops()
        if node.get_type_name() == "Convolution"
    }
    assert convolutions["head"] == "Constant"
    assert convolutions["stem"] != "Constant"
    assert convolutions["body"] != "Constant"
    detector = open_detector(ModelSpec(path=str(quantised.path), precision="int8"))
    assert (detector.model.labels, detector.model.precision) == (LABELS, "int8")
    detector.close()


def test_what_is_quantised_already_is_not_quantised_again(quantised: Exported, calibration: Path) -> None:
    out = quantised.path.with_name("again.xml")
    with pytest.raises(ConfigurationError, match="quantised already"):
        export(quantised.path, "openvino", precision="int8", calibration=calibration, out=out)


def test_a_fifth_of_the_images_is_only_compared_on_and_bad_ones_are_named(quantised: Exported) -> None:
    report = quantised.report
    assert report.images == 2
    assert report.notes[0] == "calibrated on 7 images of pictures, compared on 2 others"
    assert "9.png (image_type_unsupported)" in report.notes[1]


def test_too_few_images_to_hold_any_back_are_said_so(source: Path, calibration: Path) -> None:
    for number in range(4, 10):
        (calibration / f"{number}.png").unlink()
    request = ExportRequest(source=source, target="openvino", precision="int8", calibration=calibration)
    samples = exporting._choose_samples(request, source, ImagePolicy())
    assert (len(samples.canvases), len(samples.compared)) == (4, 4)
    assert "the same 4 images" in samples.notes[0]


def test_calibration_images_reach_the_network_as_a_backend_would_give_them(source: Path) -> None:
    head = export_openvino.read_canvas(source)
    image = draw_golden_images()["golden-640x480"]
    canvas = export_openvino.letterbox(image, head)
    assert canvas.shape == (192, 256, 3)
    planes = export_openvino._as_network_input(canvas)
    assert planes.shape == (1, 3, 192, 256)
    np.testing.assert_array_equal(planes[0, 1], canvas[..., 1].astype(np.float32) / 255)


def test_an_export_that_finds_something_else_is_kept_and_its_report_says_so(
    source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = write_deep_yolo(tmp_path / "other.onnx", seed=1)
    write = export_openvino.write_ir
    monkeypatch.setattr(export_openvino, "write_ir", lambda _, out, half: write(other, out, half=half))
    exported = export(source, "openvino")
    assert exported.path.is_file()
    report = read_parity_report(exported.path)
    assert report is not None
    assert not report.holds
    assert report.defects


def test_labels_beside_the_source_move_into_the_export(tmp_path: Path) -> None:
    source = write_deep_yolo(tmp_path / "bare.onnx", labelled=False)
    (tmp_path / "bare.labels.txt").write_text("a\nb\nc\nd\n")
    for target, precision in (("openvino", "f32"), ("onnx", "f16")):
        exported = export(source, target, precision=precision, out=None)
        moved = exported.path.rename(tmp_path / f"moved{exported.path.suffix}")
        if target == "openvino":
            exported.path.with_suffix(".bin").rename(moved.with_suffix(".bin"))
        detector = open_detector(ModelSpec(path=str(moved), precision="f32"))
        assert detector.model.labels == ("a", "b", "c", "d")
        detector.close()


def test_what_is_there_is_replaced_only_by_force(source: Path) -> None:
    out = source.with_name("mine.xml")
    out.write_text("precious")
    with pytest.raises(ConfigurationError, match="--force"):
        export(source, "openvino", out=out)
    assert out.read_text() == "precious"
    assert export(source, "openvino", out=out, force=True).path == out
    assert out.read_text() != "precious"


def test_a_failed_export_leaves_nothing_behind(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(export_openvino, "write_ir", fail)
    with pytest.raises(OSError, match="disk full"):
        export(source, "openvino")
    assert [path.name for path in source.parent.iterdir()] == ["deep.onnx"]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("openvino", {"precision": "int8"}, "--calibration DIR"),
        ("onnx", {"precision": "int8"}, "for OpenVINO only"),
        ("onnx", {}, "is that already"),
        ("openvino", {"out": Path("model.onnx")}, r"should end in \.xml"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_what_to_do(
    source: Path, target: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        export(source, target, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pth", "cannot be exported"),
        ("missing.onnx", "cannot read"),
        ("text.onnx", "not an ONNX"),
        ("text.pt", "not a checkpoint file"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, name: str, message: str) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_text("not a model")
    with pytest.raises(ConfigurationError, match=message):
        export(tmp_path / name, "openvino")
    assert not list(tmp_path.glob("*.xml"))


@pytest.mark.parametrize(("module", "precision"), [("nncf", "int8"), ("onnx", "f16")])
def test_a_missing_extra_is_named(
    source: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch, module: str, precision: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    target = "openvino" if precision == "int8" else "onnx"
    with pytest.raises(ConfigurationError, match=r"pip install 'sightstream\[export\]'"):
        export(source, target, precision=precision, calibration=calibration)


def test_tensorrt_names_its_extra_where_it_is_not_installed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "is_installed", lambda package: package != "tensorrt")
    with pytest.raises(ConfigurationError, match=r"sightstream\[tensorrt\]"):
        export(source, "tensorrt")


def test_the_decoding_part_ends_at_the_last_convolutions_and_never_goes_by_a_shape() -> None:
    sources = {
        "out": ["join"],
        "join": ["boxes", "scores", "reshape"],
        "boxes": ["expectation"],
        "expectation": ["softmax"],
        "softmax": ["last box"],
        "scores": ["last score"],
        "last box": ["features"],
        "last score": ["features"],
        "reshape": ["shape"],
        "shape": ["features"],
        "features": ["stem"],
        "stem": [],
    }
    filters = {"expectation": 1, "last box": 64, "last score": 80, "features": 32, "stem": 16}
    graph = Graph(("out",), sources.__getitem__, str, filters.get, lambda node: node == "shape")
    assert set(decoding_part(graph)) == set(sources) - {"shape", "features", "stem"}
