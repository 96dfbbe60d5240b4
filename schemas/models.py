"""Records of the model registry: which versions there are, and what workers made of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from schemas.records import EPOCH


class Stage(StrEnum):
    """Where a version stands. Of a name, at most one version is `stable`: what runs where nobody asks for another."""

    CANDIDATE = "candidate"
    STABLE = "stable"
    RETIRED = "retired"


class ModelState(StrEnum):
    """What a worker made of a version. `refused`: its files are missing or not what they should be, or it does not load."""

    LOADING = "loading"
    LOADED = "loaded"
    REFUSED = "refused"
    UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file of a model: where it is, and what it must be. `sha256` in lower-case hex."""

    uri: str = ""
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version of a model. Topic `models`, compacted by `reference`: the last record counts, a tombstone forgets it.

    `files`: the model itself first, then what must lie beside it under its own name. `digest` is `detectors.spec.ModelFile`'s.
    `backend` and `precision` as in the section `model`, empty for the worker's choice; `input_width` and `input_height` in pixels, 0 for
    the model's own. `confidence` and `iou`: its advised thresholds. `lineage`: what it was made of (data digest, recipe, parent ...).
    """

    name: str
    version: str
    digest: str = ""
    files: tuple[FileRef, ...] = ()
    backend: str = ""
    precision: str = ""
    labels: tuple[str, ...] = ()
    input_width: int = 0
    input_height: int = 0
    confidence: float | None = None
    iou: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    licence: str = ""
    lineage: Mapping[str, str] = field(default_factory=dict)
    stage: Stage = Stage.CANDIDATE
    added_at: datetime = EPOCH
    changed_at: datetime = EPOCH

    @property
    def reference(self) -> str:
        """`name@version`, as an `ImageRef` asks for it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """What a worker made of a version, and why. Topic `model-status`, compacted by worker and version."""

    worker: str
    name: str = ""
    version: str = ""
    digest: str = ""
    state: ModelState = ModelState.LOADING
    reason: str = ""
    at: datetime = EPOCH
