"""The recipe of a training run: a TOML file, each of its tables a frozen class here."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from detectors.training.network import STRIDE, NetworkPlan
from detectors.training.recipe_values import structure
from schemas.errors import ConfigurationError

# What may differ between the start of a run and its continuation, as it has no part in what comes out.
_FREE = ("data.", "training.workers", "training.device", "training.checkpoint_every", "tracker")


@dataclass(frozen=True, slots=True)
class DataPlan:
    """`[data]`: folders of data sets with the same classes; relative ones start at the recipe's folder."""

    train: str = "train"
    val: str = "val"


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """`[training]`: what is optimised, how, and for how long. Steps are optimisation steps, a batch each.

    `image_sizes`: sides in pixels of the square inputs, one drawn for each batch. `grow_first`: over this share of the steps the larger
    sizes come in one after the other, and the smaller ones go, which is quick; 0 for all of them from the start. `fixed_first`: for this
    share of the steps objects are assigned by their size, before the network itself has a say. The learning rate rises linearly over
    `warmup_steps`, then falls as a cosine to `final_share` of itself. `weight_decay`: decoupled, of convolutions' weights alone.
    `ema_decay`: share of the average that a step keeps; less of it at first, so that the random start is soon forgotten. `calm_last`:
    the share of the steps, at the end, without strong augmentation. `workers`: processes that prepare batches; None for as many as
    leave the cores to the network.
    `precision`: `auto` is 16 bits where the device computes them itself.
    """

    steps: int
    batch_size: int = 16
    image_sizes: tuple[int, ...] = (416,)
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    final_share: float = 0.01
    weight_decay: float = 0.02
    gradient_clip: float = 5.0
    ema_decay: float = 0.998
    calm_last: float = 0.1
    grow_first: float = 0.0
    fixed_first: float = 0.5
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    channels_last: bool = True
    workers: int | None = None
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "learning_rate", "gradient_clip", "checkpoint_every")
        _check(self, "training", positive, lambda value: 0 < value < math.inf, "positive")
        shares = ("final_share", "ema_decay", "calm_last", "grow_first", "fixed_first")
        _check(self, "training", shares, lambda value: 0 <= value <= 1, "within 0..1")
        _check(
            self, "training", ("warmup_steps", "weight_decay", "seed"), lambda value: 0 <= value < math.inf, "0 or more"
        )
        _check(self, "training", ("workers",), lambda value: value is None or value >= 0, "0 or more")
        if not self.image_sizes or any(size < STRIDE or size % STRIDE for size in self.image_sizes):
            raise ValueError(f"training.image_sizes must be multiples of {STRIDE}")


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """`[evaluation]`: on the validation set, every so many steps and at the end.

    `pictures`: at most so many, spread over the set. `patience`: evaluations without a better mAP50-95 before the run stops; 0 for
    never.
    """

    every: int = 500
    image_size: int = 416
    pictures: int = 500
    patience: int = 0

    def __post_init__(self) -> None:
        _check(self, "evaluation", ("every", "pictures"), lambda value: 0 < value < math.inf, "positive")
        _check(self, "evaluation", ("patience",), lambda value: value >= 0, "0 or more")
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise ValueError(f"evaluation.image_size must be a multiple of {STRIDE}")


@dataclass(frozen=True, slots=True)
class AugmentationPlan:
    """`[augmentation]`: what is done to pictures on their way. A plain number is the share of pictures that it is done to.

    `scale`: a picture fits the input at 1, is drawn smaller or larger between these, log-uniformly, and what is out of frame is cut off.
    `mosaic`: four pictures share an input. `brightness`, `contrast`, `gamma`, `colour`: strengths, 0 for none, applied to `light` of the
    pictures. Strong ones, which the calm end of a run leaves out: mosaic, `light` above a half of its share, noise, blur, JPEG, grey,
    invert; and the scale is drawn from half of its range.
    """

    scale: tuple[float, float] = (0.5, 1.5)
    flip: float = 0.5
    quarter_turns: float = 0.5
    mosaic: float = 0.25
    light: float = 0.8
    brightness: float = 0.3
    contrast: float = 0.3
    gamma: float = 0.3
    colour: float = 0.15
    grey: float = 0.1
    invert: float = 0.05
    blur: float = 0.1
    noise: float = 0.15
    jpeg: float = 0.1
    kept_share: float = 0.4

    def __post_init__(self) -> None:
        shares = ("flip", "quarter_turns", "mosaic", "light", "grey", "invert", "blur", "noise", "jpeg", "kept_share")
        _check(self, "augmentation", shares, lambda value: 0 <= value <= 1, "within 0..1")
        strengths = ("brightness", "contrast", "gamma", "colour")
        _check(self, "augmentation", strengths, lambda value: 0 <= value < 1, "0 or more, and less than 1")
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError("augmentation.scale must be positive, the smaller one first")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a run is made of, but the pictures' bytes."""

    training: TrainingPlan
    data: DataPlan = field(default_factory=DataPlan)
    network: NetworkPlan = field(default_factory=NetworkPlan)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    augmentation: AugmentationPlan = field(default_factory=AugmentationPlan)
    tracker: Literal["none", "tensorboard"] = "none"

    @classmethod
    def read(cls, path: Path, changes: Mapping[str, Any] | None = None) -> Self:
        """The recipe in a TOML file, with `changes` by dotted name over it. Raises ConfigurationError."""
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"cannot read the recipe {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigurationError(f"{path} is not TOML: {error}") from error
        for dotted, value in (changes or {}).items():
            _put(tables, dotted, value)
        try:
            recipe = structure(cls, tables)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error
        near = path.absolute().parent
        return replace(recipe, data=DataPlan(str(near / recipe.data.train), str(near / recipe.data.val)))

    def as_tables(self) -> dict[str, Any]:
        """All values, given or default, in types that TOML and JSON have."""
        tables: dict[str, Any] = _plain(asdict(self))
        return tables

    def differences(self, tables: Mapping[str, Any]) -> list[str]:
        """What differs from another recipe's `as_tables`, one text each, but for what a run may change on its way."""
        mine, theirs = _flatten(self.as_tables()), _flatten(tables)
        return [
            f"{name} is {mine.get(name)!r}, was {theirs.get(name)!r}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name) and not name.startswith(_FREE)
        ]


def _put(tables: dict[str, Any], dotted: str, value: Any) -> None:
    *above, last = dotted.split(".")
    for depth, name in enumerate(above, 1):
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            raise ConfigurationError(f"{dotted}: {'.'.join(above[:depth])} is not a table")
    tables[last] = value


def _check(plan: Any, section: str, names: tuple[str, ...], holds: Any, wanted: str) -> None:
    for name in names:
        if not holds(getattr(plan, name)):
            raise ValueError(f"{section}.{name} must be {wanted}, not {getattr(plan, name)!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items() if entry is not None}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _flatten(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= _flatten(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat
