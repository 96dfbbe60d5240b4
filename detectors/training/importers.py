"""Which reader a source wants."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from detectors.training.found import Found
from detectors.training.importer_coco import find_coco_files, read_coco
from detectors.training.importer_voc import read_voc
from detectors.training.importer_yolo import read_yolo
from schemas.errors import ConfigurationError

Format: TypeAlias = Literal["coco", "voc", "yolo"]
FORMATS: tuple[str, ...] = get_args(Format)


def read_labels(source: Path, kind: str | None, names: Sequence[str] = (), pictures: Path | None = None) -> Found:
    """Read labels in one of `FORMATS`; None: the one that the source looks like. Raises ConfigurationError, also where it is none."""
    if not source.exists():
        raise ConfigurationError(f"there is no {source}")
    if pictures is not None and not pictures.is_dir():
        raise ConfigurationError(f"there is no folder {pictures}")
    kind = kind or guess_format(source)
    if kind == "yolo":
        return read_yolo(source, names, pictures)
    return (read_coco if kind == "coco" else read_voc)(source, pictures)


def guess_format(source: Path) -> Format:
    """What the files look like. Raises ConfigurationError where they look like nothing known."""
    if source.is_file():
        suffix = source.suffix.lower()
        if suffix == ".json":
            return "coco"
        if suffix in {".yaml", ".yml"}:
            return "yolo"
    else:
        with suppress(ConfigurationError):
            find_coco_files(source)
            return "coco"
        if next(source.rglob("*.xml"), None):
            return "voc"
        if any((source / name).exists() for name in ("data.yaml", "labels")) or next(source.rglob("*.txt"), None):
            return "yolo"
    raise ConfigurationError(f"{source} looks like labels of none of the formats {', '.join(FORMATS)}: say --format")
