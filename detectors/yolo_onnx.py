"""What an exported YOLO model says of itself, whichever library reads the file.

ONNX files carry it in `metadata_props`, as Ultralytics' export writes it: `names` (the text of a dict from class id to label), `stride`
and `imgsz` (the text of `[height, width]`). `sightstream package` adds `confidence` and `iou`, which hold unless somebody says
another; `sightstream_precision` is `f16` where our own export converted the network. OpenVINO IR carries the same keys under
`rt_info["framework"]`, where OpenVINO's ONNX reader puts them and `openvino.save_model` keeps them. Labels may lie in `NAME.labels.txt`
beside either.
"""

import ast
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from detectors.spec import Advice, ModelSpec, read_labels_file
from schemas.errors import ConfigurationError

PRECISION_KEY = "sightstream_precision"
_DEFAULT_SIZE, _DEFAULT_STRIDE = 640, 32
_BOX_ROWS = 4


@dataclass(frozen=True, slots=True)
class Signature:
    """What a library read from the file. Sides that are free are None: `images` is (n, 3, height, width), `output` (n, rows, anchors)."""

    images: tuple[int | None, ...]
    output: tuple[int | None, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Head:
    """How to feed the model and read its output.

    `canvas`: (width, height) of the largest input. `stride`: sides of smaller canvases are multiples of it; None where the input's size is
    fixed. `batch`: the number of images of a call where that is fixed, else None. `precision`: what the file says that it computes in; ""
    where it says nothing. `advice`: for requests that do not say: what the spec says, else the file, else the defaults.
    """

    labels: tuple[str, ...]
    canvas: tuple[int, int]
    stride: int | None
    batch: int | None = None
    precision: str = ""
    advice: Advice = field(default_factory=Advice)


def read_head(signature: Signature, path: Path, spec: ModelSpec) -> Head:
    """The head of the model at `path`. Raises ConfigurationError where it has no labels or is not a YOLOv8-style head."""
    metadata = signature.metadata
    labels = _parse_labels(metadata.get("names")) or read_labels_file(path)
    if not labels:
        hint = f"put one label a line into {path.with_suffix('.labels.txt').name} beside it"
        raise ConfigurationError(f"{path} does not say its labels (metadata `names`); {hint}")
    _check_shapes(signature, labels, path)
    batch, _, height, width = signature.images
    precision = metadata.get(PRECISION_KEY, "")
    advice = spec.advise(_parse_advice(metadata))
    if height is not None and width is not None:
        return Head(labels, (width, height), None, batch, precision, advice)
    height, width = _parse_sizes(metadata.get("imgsz")) if spec.image_size is None else (spec.image_size,) * 2
    return Head(labels, (width, height), _parse_stride(metadata.get("stride")), batch, precision, advice)


def _check_shapes(signature: Signature, labels: tuple[str, ...], path: Path) -> None:
    images, output, rows = signature.images, signature.output, _BOX_ROWS + len(labels)
    if len(images) != 4 or images[1] != 3:
        raise ConfigurationError(f"{path} takes {_show(images)}; expected images as [n, 3, height, width]")
    if len(output) != 3 or output[1] not in {rows, None}:
        raise ConfigurationError(
            f"{path} gives {_show(output)}; expected a YOLOv8 head, [n, {rows}, anchors], for its {len(labels)} labels"
        )


def _show(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def _parse_labels(text: str | None) -> tuple[str, ...] | None:
    with suppress(ValueError, SyntaxError, TypeError, AttributeError, KeyError):
        names = ast.literal_eval(text or "")
        return tuple(str(names[class_id]) for class_id in range(len(names)))
    return None


def _parse_sizes(text: str | None) -> tuple[int, int]:
    """(height, width); 640 square where the file does not say."""
    with suppress(ValueError, SyntaxError, TypeError):
        height, width = ast.literal_eval(text or "")
        return int(height), int(width)
    return _DEFAULT_SIZE, _DEFAULT_SIZE


def _parse_stride(text: str | None) -> int:
    with suppress(ValueError, TypeError):
        return int(text or "")
    return _DEFAULT_STRIDE


def _parse_advice(metadata: Mapping[str, str]) -> Advice:
    said = {name: _parse_share(metadata.get(name)) for name in ("confidence", "iou")}
    return Advice(**{name: share for name, share in said.items() if share is not None})


def _parse_share(text: str | None) -> float | None:
    with suppress(ValueError):
        share = float(text or "")
        return share if 0 <= share <= 1 else None
    return None
