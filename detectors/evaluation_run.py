"""A detector over a data set's images, by the way that images of the pipeline go: the loader, then `detect`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detectors.base import Boxes, Detector, Image
from detectors.images import ImageLoader, ImageOutcome, ImagePolicy, ImageRequest
from schemas.errors import BusyError, RejectedError
from schemas.records import DetectParameters

# Images that are decoded at once: enough to keep the decoders busy, few enough to hold.
_MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Boxes of the images that could be read, one entry for each of `image_ids`; `missing`: why there is none, by file."""

    image_ids: tuple[int, ...]
    boxes: Boxes
    missing: Mapping[Path, str]


def predict(
    detector: Detector,
    files: Mapping[int, Path],
    policy: ImagePolicy,
    parameters: DetectParameters,
    watch: Callable[[int], object] = lambda _: None,
    look: Callable[[int, Image], object] = lambda _, __: None,
) -> Predictions:
    """Detect on every file, by image id; they may lie anywhere, whatever the policy's roots are.

    An image that cannot be read is named in `missing` and fails no other; what the detector raises is raised. `watch` gets the number
    of images done since it was last called, `look` every image that could be read, once, in a thread of its own.
    """
    policy = replace(policy, roots=tuple({path.resolve().parent for path in files.values()}))

    def detect(images: Mapping[int, Image]) -> Boxes:
        for image_id, image in images.items():
            look(image_id, image)
        return detector.detect(list(images.values()), [parameters] * len(images))

    return asyncio.run(_predict(detector, files, policy, detect, watch))


async def _predict(
    detector: Detector,
    files: Mapping[int, Path],
    policy: ImagePolicy,
    detect: Callable[[Mapping[int, Image]], Boxes],
    watch: Callable[[int], object],
) -> Predictions:
    good: dict[int, Image] = {}
    image_ids: list[int] = []
    missing: dict[Path, str] = {}
    parts: list[Boxes] = []
    chunks = _cut(list(files), min(detector.max_batch, _MOST_AT_ONCE))
    async with ImageLoader(policy, detector.model.canvas) as loader:
        # One chunk is loaded while the one before it is in the detector.
        for before, chunk in zip([(), *chunks], [*chunks, ()], strict=True):
            loading = asyncio.create_task(loader.load([ImageRequest(files[i].absolute().as_uri()) for i in chunk]))
            if before:
                parts.append(await asyncio.to_thread(detect, good))
                watch(len(before))
            outcomes = dict(zip(chunk, await loading, strict=True))
            good = {image_id: outcome for image_id, outcome in outcomes.items() if isinstance(outcome, Image)}
            image_ids += good
            missing |= {files[image_id]: reason for image_id, reason in _reasons(outcomes).items()}
    return Predictions(tuple(image_ids), Boxes.concatenate(parts), missing)


def _cut(image_ids: Sequence[int], size: int) -> list[Sequence[int]]:
    return [image_ids[start : start + size] for start in range(0, len(image_ids), size)]


def _reasons(outcomes: Mapping[int, ImageOutcome]) -> dict[int, str]:
    return {
        image_id: outcome.reason.value
        for image_id, outcome in outcomes.items()
        if isinstance(outcome, RejectedError | BusyError)
    }
