"""Which places of the network learn which object.

By size and place alone at first, after FCOS (Tian et al., 2019), section 3.2, with the central regions of its later version: a network
that knows nothing yet learns from that at once. Then by task alignment, after TOOD (Feng et al., 2021), section 3.2, which asks the
network itself and so must not be asked too early.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

# The paper's: alignment t = score^ALPHA * IoU^BETA, and the TOP places of each object by it.
_ALPHA, _BETA, _TOP = 1.0, 6.0, 13
# Objects of a level, by their longer side in strides: ranges overlap, or those at a border would be learnt on one side of it alone.
_SMALLEST, _LARGEST = 3.5, 9.0
# The central region: so many strides about the centre, or for large objects this share of their sides.
_REGION_STRIDES, _REGION_SHARE = 1.5, 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """For each of n x a places: `objects` int64, the index of its object or -1; `quality` float32, the score to learn, 0..1."""

    objects: Tensor
    quality: Tensor


@torch.no_grad()  # type: ignore[untyped-decorator]
def assign_by_size(places: Tensor, strides: Tensor, boxes: Tensor) -> Assignment:
    """Assign the objects of each image by their size and place, whatever is predicted; every quality is 1.

    `places` (a, 2) and `strides` (a,) are the cells' centres and their level's stride, `boxes` (n, m, 4) the objects, padded with empty
    ones; xyxy in pixels. A place that several objects want goes to the smallest. An object without any place gets the nearest.
    """
    inside = _inside(places, boxes)
    sizes = boxes[..., 2:] - boxes[..., :2]
    longer = sizes.amax(dim=2)[..., None]
    finest, coarsest = strides == strides.min(), strides == strides.max()
    fits = ((longer >= _SMALLEST * strides) | finest) & ((longer < _LARGEST * strides) | coarsest)
    away = (places - ((boxes[..., :2] + boxes[..., 2:]) / 2)[:, :, None]).abs()
    region = torch.maximum(_REGION_STRIDES * strides[:, None], _REGION_SHARE * sizes[:, :, None])
    wanted = inside & fits & (away <= region).all(dim=3)
    # What is so small or thin that no place of its region is left takes the finest ones within, or whatever there is.
    left = inside & ~wanted.any(dim=2, keepdim=True)
    wanted |= left & (finest | ~(left & finest).any(dim=2, keepdim=True))
    smallest, objects = torch.where(wanted, sizes.prod(dim=2)[..., None], torch.inf).min(dim=1)
    objects = torch.where(smallest < torch.inf, objects, -1)
    return Assignment(objects, (objects >= 0).float())


@torch.no_grad()  # type: ignore[untyped-decorator]
def assign(scores: Tensor, corners: Tensor, places: Tensor, boxes: Tensor, class_ids: Tensor) -> Assignment:
    """Assign the objects of each image.

    `scores` (n, a, classes) and `corners` (n, a, 4) are what is predicted now, `places` (a, 2) the centres of the cells, `boxes`
    (n, m, 4) the objects, padded with empty boxes, `class_ids` (n, m). Boxes are xyxy in pixels. A place that several objects
    want goes to the one that its prediction overlaps most. An object with no place inside gets the nearest.
    """
    alignment, overlaps = _align(scores, corners, boxes, class_ids)
    candidates = _inside(places, boxes)
    wanted = _best_places(alignment, candidates) & candidates
    rival = torch.where(wanted, overlaps, -1.0)
    overlap, objects = rival.max(dim=1)
    objects = torch.where(overlap >= 0, objects, -1)
    return Assignment(objects, _quality(alignment, overlaps, objects))


def _align(scores: Tensor, corners: Tensor, boxes: Tensor, class_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Alignment and IoU of each object with each place: (n, m, a) both."""
    overlaps = torch.stack([box_iou(wanted, found) for wanted, found in zip(boxes, corners, strict=True)]).nan_to_num_()
    of_class = scores.transpose(1, 2).gather(1, class_ids[..., None].expand(-1, -1, scores.shape[1]))
    return of_class.pow(_ALPHA) * overlaps.pow(_BETA), overlaps


def _inside(places: Tensor, boxes: Tensor) -> Tensor:
    """Whether each place lies in each object: bool (n, m, a); the nearest one counts as within where there is none."""
    leading, trailing = places - boxes[:, :, None, :2], boxes[:, :, None, 2:] - places
    inside = torch.cat((leading, trailing), dim=3).amin(dim=3) > 0
    distance = (places - (boxes[..., :2] + boxes[..., 2:])[:, :, None] / 2).square().sum(dim=3)
    nearest = torch.zeros_like(inside).scatter_(2, distance.argmin(dim=2, keepdim=True), value=True)
    real = (boxes[..., 2:] > boxes[..., :2]).all(dim=2)[..., None]
    return (inside | (nearest & ~inside.any(dim=2, keepdim=True))) & real


def _best_places(alignment: Tensor, candidates: Tensor) -> Tensor:
    top = min(_TOP, alignment.shape[2])
    ranked = torch.where(candidates, alignment, -1.0).topk(top, dim=2).indices
    return torch.zeros_like(candidates).scatter_(2, ranked, value=True)


def _quality(alignment: Tensor, overlaps: Tensor, objects: Tensor) -> Tensor:
    """The alignment of each place, scaled so that the best place of an object has that object's best overlap."""
    mine = objects[:, None] == torch.arange(alignment.shape[1], device=objects.device)[:, None]
    alignment, overlaps = alignment * mine, overlaps * mine
    scale = overlaps.amax(dim=2, keepdim=True) / alignment.amax(dim=2, keepdim=True).clamp(min=1e-30)
    return (alignment * scale).sum(dim=1)
