"""From files to the record of a version: what they are, where workers find them, and what the model says of itself."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from detectors.choice import choose_backend
from detectors.registry import STAND_INS, open_detector
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError
from schemas.models import FileRef, ModelVersion, Stage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What belongs to a model by its name.
_BESIDE = (".bin", ".labels.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A version that is to be added. `at`: the URI of the folder where workers find the files; empty: where they are, by path."""

    model: str
    name: str
    version: str
    beside: Sequence[Path] = ()
    at: str = ""
    backend: str = ""
    precision: str = ""
    confidence: float | None = None
    iou: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    stage: Stage = Stage.CANDIDATE


def describe(wanted: NewVersion, now: datetime, device: str = "auto") -> ModelVersion:
    """The record. The model is opened for it, once, as f32: so what cannot run is never added. Raises ConfigurationError."""
    for what, text in (("name", wanted.name), ("version", wanted.version)):
        if not _NAME.fullmatch(text) or text == "stable":
            raise ConfigurationError(f"{text!r} is no {what}: letters, digits, . _ - (64 at most), and not 'stable'")
    said = {name: getattr(wanted, name) for name in ("name", "version", "metrics", "lineage", "licence", "stage")}
    given = {name: getattr(wanted, name) for name in ("backend", "precision", "confidence", "iou")}
    if wanted.model in STAND_INS:
        return ModelVersion(**said, **given | {"backend": wanted.model}, added_at=now, changed_at=now)
    path = Path(wanted.model)
    spec = ModelSpec(
        path=wanted.model, name=wanted.name, version=wanted.version, backend=wanted.backend or "auto", device=device
    )
    choose_backend(spec)
    digest = read_model(spec).digest
    detector = open_detector(ModelSpec(path=wanted.model, backend=spec.backend, device=device, precision="f32"))
    model = detector.model
    detector.close()
    width, height = model.canvas or (0, 0)
    return ModelVersion(
        **said,
        **given,
        digest=digest,
        files=tuple(_file(one, wanted.at) for one in _with_companions(path, wanted.beside)),
        labels=model.labels,
        input_width=width,
        input_height=height,
        added_at=now,
        changed_at=now,
    )


def _with_companions(model: Path, beside: Sequence[Path]) -> list[Path]:
    found = [one for suffix in _BESIDE if (one := model.with_name(f"{model.stem}{suffix}")).is_file()]
    return list(dict.fromkeys([model, *found, *beside]))


def _file(path: Path, at: str) -> FileRef:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    uri = f"{at.rstrip('/')}/{quote(path.name)}" if at else path.absolute().as_uri()
    return FileRef(uri=uri, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
