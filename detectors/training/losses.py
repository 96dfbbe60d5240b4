"""What training lowers: how wrong the scores are and how far the boxes are off, over a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss

from detectors.training.assignment import assign, assign_by_size
from detectors.training.network import STRIDES, flatten, grid

# How much boxes count beside scores.
_BOX_SHARE = 2.5
# Varifocal loss (Zhang et al., 2021), equation 2, with the paper's values: easy places without an object count little.
_FOCUS, _BACKGROUND = 2.0, 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The objects of an image. `boxes`: float32 (m, 4), xyxy in pixels of the network's input; `class_ids`: int64 (m,)."""

    boxes: Tensor
    class_ids: Tensor


def detection_loss(raw: Sequence[Tensor], targets: Sequence[Targets], *, aligned: bool = True) -> dict[str, Tensor]:
    """Losses of a batch: `scores` and `boxes`, each a scalar per unit of what there is to find, and `loss`, their sum.

    `raw`: what `Network` gives for as many images as there are `targets`. Computed in float32 whatever the network ran in.
    `aligned`: the network has a say in which places learn which object; before it knows anything it should not.
    """
    classes = raw[0].shape[1] - 4
    logits, corners = flatten(raw, classes)
    boxes, class_ids = _pad(targets, logits.device)
    scores = logits.sigmoid()
    assigned = (
        assign(scores.detach(), corners.detach(), _places(raw), boxes, class_ids)
        if aligned
        else assign_by_size(_places(raw), _strides(raw), boxes)
    )
    found = assigned.objects >= 0
    objects = assigned.objects.clamp(min=0)
    wanted = torch.zeros_like(logits)
    of_class = class_ids.gather(1, objects)[..., None]
    wanted.scatter_(2, of_class, (assigned.quality * found)[..., None])
    amount = wanted.sum().clamp(min=1.0)
    weights = torch.where(wanted > 0, wanted, _BACKGROUND * scores.detach().pow(_FOCUS))
    score_loss = functional.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="sum") / amount
    truth = boxes.gather(1, objects[..., None].expand(-1, -1, 4))[found]
    distances = complete_box_iou_loss(corners[found], truth, reduction="none")
    box_loss = _BOX_SHARE * (distances * assigned.quality[found]).sum() / amount
    return {"loss": score_loss + box_loss, "scores": score_loss.detach(), "boxes": box_loss.detach()}


def _places(raw: Sequence[Tensor]) -> Tensor:
    return torch.cat([grid(x.shape[2], x.shape[3], stride, x.device) for x, stride in zip(raw, STRIDES, strict=True)])


def _strides(raw: Sequence[Tensor]) -> Tensor:
    return torch.cat(
        [
            x.new_full((x.shape[2] * x.shape[3],), stride, dtype=torch.float32)
            for x, stride in zip(raw, STRIDES, strict=True)
        ]
    )


def _pad(targets: Sequence[Targets], device: torch.device) -> tuple[Tensor, Tensor]:
    """Boxes (n, m, 4) and class ids (n, m); images with fewer than m objects get empty boxes. m is at least 1."""
    most = max(1, *(len(target.class_ids) for target in targets))
    boxes = torch.zeros(len(targets), most, 4, device=device)
    class_ids = torch.zeros(len(targets), most, dtype=torch.int64, device=device)
    for row, target in enumerate(targets):
        boxes[row, : len(target.class_ids)] = target.boxes.to(device)
        class_ids[row, : len(target.class_ids)] = target.class_ids.to(device)
    return boxes, class_ids
