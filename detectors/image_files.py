"""Image files of a directory, loaded as the pipeline loads them: for calibration and for comparing backends."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from detectors.base import Image
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from schemas.errors import BusyError, ConfigurationError, RejectedError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_AT_ONCE = 16

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True, eq=False)
class Loaded(Generic[Kept]):
    """What was kept of each image, in order, and why there is nothing of the others."""

    kept: dict[Path, Kept]
    missing: dict[Path, str]


def find_images(directory: Path, at_most: int) -> list[Path]:
    """Images below a directory, by suffix, in order of name; of more than `at_most`, so many spread evenly.

    Raises ConfigurationError where there is none.
    """
    found = sorted(path for path in directory.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not found:
        raise ConfigurationError(f"there are no images ({', '.join(sorted(_SUFFIXES))}) in {directory}")
    step = max(len(found) / at_most, 1)
    return [found[int(place * step)] for place in range(min(len(found), at_most))]


def load_files(paths: Sequence[Path], policy: ImagePolicy, keep: Callable[[Path, Image], Kept]) -> Loaded[Kept]:
    """Load files, wherever they lie, and `keep` something of each: full pixels of many images would fill the memory."""
    policy = replace(policy, roots=tuple({path.resolve().parent for path in paths}))
    return asyncio.run(_load(paths, policy, keep))


async def _load(paths: Sequence[Path], policy: ImagePolicy, keep: Callable[[Path, Image], Kept]) -> Loaded[Kept]:
    loaded: Loaded[Kept] = Loaded({}, {})
    async with ImageLoader(policy) as loader:
        for start in range(0, len(paths), _AT_ONCE):
            chunk = paths[start : start + _AT_ONCE]
            outcomes = await loader.load([ImageRequest(path.absolute().as_uri()) for path in chunk])
            for path, outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, RejectedError | BusyError):
                    loaded.missing[path] = outcome.reason.value
                else:
                    loaded.kept[path] = keep(path, outcome)
    return loaded
