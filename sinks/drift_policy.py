"""The knobs of drift, apart from it so that reading settings loads no numerics."""

from dataclasses import dataclass

TENANT, KEY, ATTRIBUTES = "tenant", "key", "attributes."


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPolicy:
    """When a window of results differs from its baseline.

    `baseline`: the id of the one that is watched. `slices`: what a new baseline tells images apart by: `tenant`, `key`,
    `attributes.NAME`; at most `max_slices` of them are kept. A window of `window_s` is closed when the results are `lateness_s` beyond its
    end. A slice is judged once it has `min_images`, gathered over several windows where one has too few, but over `max_span_s` at most.

    It differs by PSI over `psi`, or over what chance alone reaches with probability `chance` in so few images, whichever is more; by a
    mean that is `least_change` (of the statistic's whole range) off and that ADWIN tells apart. `adwin`: `auto` (where river is
    installed), `on` or `off`. `checkpoint_s`: how much is read again after a crash, at most.
    """

    baseline: str = "default"
    slices: tuple[str, ...] = (TENANT, KEY)
    max_slices: int = 1_000
    window_s: float = 900.0
    lateness_s: float = 60.0
    max_span_s: float = 86_400.0
    min_images: int = 200
    psi: float = 0.2
    chance: float = 0.001
    least_change: float = 0.05
    adwin: str = "auto"
    checkpoint_s: float = 30.0

    def __post_init__(self) -> None:
        if self.window_s <= 0 or self.lateness_s < 0 or self.max_span_s < self.window_s:
            raise ValueError("window_s must be positive, lateness_s not negative, max_span_s at least window_s")
        if self.min_images < 1 or self.max_slices < 1:
            raise ValueError("min_images and max_slices must be at least 1")
        if not 0 < self.chance < 1 or self.psi <= 0 or self.least_change <= 0:
            raise ValueError("psi and least_change must be positive, chance between 0 and 1")
        if self.adwin not in ("auto", "on", "off"):
            raise ValueError("adwin is auto, on or off")
        check_dimensions(self.slices)


def check_dimensions(slices: tuple[str, ...]) -> None:
    """Raises ValueError for what images cannot be told apart by."""
    for name in slices:
        if name not in (TENANT, KEY) and not (name.startswith(ATTRIBUTES) and len(name) > len(ATTRIBUTES)):
            raise ValueError(f"a slice is tenant, key or attributes.NAME, not {name!r}")
    if not slices or len(set(slices)) < len(slices):
        raise ValueError("slices must be named, each once")
