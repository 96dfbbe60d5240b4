"""Changed copies of the pictures of a data set, written beside them: moved, seen from elsewhere, in another light, worse.

The geometry is one homography for pixels and outlines alike. torchvision's transforms mirror key points about the centres of pixels
but turn them about the edges (0.29, `horizontal_flip_keypoints` and `affine_keypoints`), which would put boxes a pixel off.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from detectors.cores import usable_cores
from detectors.decode import decode
from detectors.training.augmentation import recolour
from detectors.training.dataset import IMAGES, Dataset, Label, Picture, write_dataset
from detectors.training.folders import Placement, name_pictures, new_folder, place_pictures, read_splits
from detectors.training.placing import PAD
from detectors.training.polygons import Outline, around, clip, clockwise, signed_area
from detectors.training.recipe import AugmentationPlan
from schemas.errors import ConfigurationError, RejectedError

AUGMENTED = frozenset({"", "train"})
"""The splits that get copies: what a model is measured on stays as it is."""

# The least side in pixels of an object that is worth a label.
_LEAST_SIDE = 2.0
_QUALITY = 92

Matrix = NDArray[np.float64]
"""(3, 3): a homography of points (x, y, 1) in pixels, whose (0, 0) is the corner of the frame, not the centre of its first pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentPolicy:
    """How many copies, and how they differ from their picture.

    `degrees`: turned by at most so many either way. `scale`: log-uniformly between these. `shift` and `perspective`: at most so large a
    share of a side, of the whole and of each corner by itself. `flip`: half of the copies are mirrored from left to right; `both`: half
    of them from top to bottom, too. `look`: shares and strengths of light, blur, noise ... as in training; its geometry has no part.
    `kept_share`: an object of which less is left in the frame is painted over. Pictures of more than `max_pixels` are an error.
    """

    copies: int = 1
    seed: int = 0
    degrees: float = 10.0
    scale: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.1
    perspective: float = 0.04
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    look: AugmentationPlan = field(default_factory=lambda: AugmentationPlan(invert=0.0))
    kept_share: float = 0.4
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigurationError("scale must be positive, the smaller one first")


def augment_dataset(
    source: Path,
    splits: Mapping[str, Dataset],
    out: Path,
    policy: AugmentPolicy,
    placement: Placement,
    watch: Callable[[int], object] = lambda _: None,
) -> dict[str, Dataset]:
    """Write the folder `out`: `splits`, read from `source`, and copies of the pictures of train, or of all where there are no splits.

    Copies are JPEGs in `images/augmented/`. The same seed gives the same copies of the same set, however many cores there are.
    `watch` gets 1 for each picture that is written. Raises ConfigurationError, and leaves nothing behind.
    """
    with new_folder(out) as folder:
        for split, named in name_pictures(source, splits).items():
            pictures = place_pictures(folder / split, named, placement, watch)
            if split in AUGMENTED:
                for copy in _copy_all(tuple(pictures), folder / split / IMAGES, policy):
                    pictures.append(copy)
                    watch(1)
            write_dataset(folder / split, splits[split].names, pictures)
    return read_splits(out)


def _copy_all(placed: Sequence[Picture], root: Path, policy: AugmentPolicy) -> Iterator[Picture]:
    """Every copy, in the order of the pictures."""
    folder = _free_folder(root)

    def copy(place: int) -> list[Picture]:
        picture = placed[place]
        pixels = _read(picture, policy.max_pixels)
        target = folder / picture.file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        made = []
        for number in range(1, policy.copies + 1):
            changed, labels = augment(
                pixels, picture.labels, policy, np.random.default_rng((policy.seed, place, number))
            )
            file = target.with_name(f"{target.name}-{number}.jpg")
            file.write_bytes(simplejpeg.encode_jpeg(changed, quality=_QUALITY))
            made.append(replace(picture, file=file, labels=labels))
        return made

    with ThreadPoolExecutor(usable_cores()) as pool:
        for made in pool.map(copy, range(len(placed))):
            yield from made


def augment(
    pixels: NDArray[np.uint8], labels: Sequence[Label], policy: AugmentPolicy, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[Label, ...]]:
    """One changed copy of the same size, and the labels that are left. `pixels`: uint8 (h, w, 3), RGB. Pure for a state of `rng`."""
    height, width = pixels.shape[:2]
    matrix = draw_matrix((width, height), policy, rng)
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts from the centre of the first pixel
    moved: NDArray[np.uint8] = cv2.warpPerspective(
        pixels,
        np.linalg.inv(centre) @ matrix @ centre,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PAD, PAD, PAD),
    )
    kept = []
    for label in labels:
        followed, left = follow(label, matrix, (width, height), policy.kept_share)
        if followed is not None:
            kept.append(followed)
        elif left:
            rest = [np.array(left).round().astype(np.int32)]
            cv2.fillPoly(moved, rest, (PAD, PAD, PAD))
            cv2.polylines(moved, rest, isClosed=True, color=(PAD, PAD, PAD), thickness=5)  # its blurred edge, too
    return np.ascontiguousarray(recolour(moved, policy.look, rng)), tuple(kept)


def draw_matrix(frame: tuple[int, int], policy: AugmentPolicy, rng: np.random.Generator) -> Matrix:
    """A homography from the old picture to the new one."""
    width, height = frame
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    bent = corners + rng.uniform(-policy.perspective, policy.perspective, (4, 2)) * frame
    perspective = cv2.getPerspectiveTransform(corners.astype(np.float32), bent.astype(np.float32))
    angle = np.radians(rng.uniform(-policy.degrees, policy.degrees))
    size = float(np.exp(rng.uniform(*np.log(policy.scale))))
    cosine, sine = size * np.cos(angle), size * np.sin(angle)
    x, y = rng.uniform(-policy.shift, policy.shift, 2) * frame
    mirrored, upended = rng.random(2) < 0.5
    across = -1.0 if mirrored and policy.flip != "none" else 1.0
    down = -1.0 if upended and policy.flip == "both" else 1.0
    to_centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    turn = np.array([[cosine * across, -sine * down, x], [sine * across, cosine * down, y], [0, 0, 1]])
    return np.asarray(perspective @ np.linalg.inv(to_centre) @ turn @ to_centre, np.float64)


def follow(label: Label, matrix: Matrix, frame: tuple[int, int], kept_share: float) -> tuple[Label | None, Outline]:
    """The label in the changed picture, None where too little is left of it, and what is seen of its outline.

    With an outline the box stays tight around what is seen of it; without, it is the box around the turned box, which is looser.
    """
    left, top, right, bottom = label.box
    points = np.array(label.outline or ((left, top), (right, top), (right, bottom), (left, bottom)), np.float64)
    moved: Outline = tuple(map(tuple, cv2.perspectiveTransform(points[None], matrix)[0].tolist()))
    seen = clip(moved, frame)
    if not seen:
        return None, ()
    box = around(seen)
    whole = abs(signed_area(moved))
    enough = abs(signed_area(seen)) >= kept_share * whole and min(box[2] - box[0], box[3] - box[1]) >= _LEAST_SIDE
    if not enough:
        return None, seen
    return replace(label, box=box, outline=clockwise(moved) if label.outline else ()), seen


def _read(picture: Picture, max_pixels: int) -> NDArray[np.uint8]:
    try:
        pixels = decode(picture.file.read_bytes(), max_pixels)
    except RejectedError as error:
        raise ConfigurationError(
            f"the picture {picture.file.name} cannot be read: {error}; see `sightstream data check`"
        ) from error
    height, width = pixels.shape[:2]
    if (width, height) != (picture.width, picture.height):
        sizes = f"{width}x{height}, not {picture.width}x{picture.height}"
        raise ConfigurationError(f"the picture {picture.file.name} is of {sizes}; see `sightstream data check`")
    return pixels


def _free_folder(root: Path) -> Path:
    """Where copies go: a set may have been augmented before."""
    number, folder = 1, root / "augmented"
    while folder.exists():
        number += 1
        folder = root / f"augmented-{number}"
    return folder
