"""Models on torch for tests, with random weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from detectors.torchvision import build_network, write_checkpoint
from detectors.ultralytics import import_confined
from tests.support.models import LABELS


def write_tiny_torchvision(
    path: Path,
    labels: tuple[str, ...] = LABELS,
    architecture: str = "ssdlite320_mobilenet_v3_large",
    arguments: Mapping[str, object] | None = None,
) -> Path:
    """A checkpoint with random weights, the same on every call; its boxes mean nothing, but there are some of many scores."""
    torch.manual_seed(0)
    network = build_network(architecture, len(labels), arguments or {})
    head: Any = getattr(network, "head", lambda _: None)
    settle(network, 320, lambda noise: head(list(network.backbone(noise).values())))
    if architecture.startswith("ssdlite"):
        for layer in head.classification_head.module_list:
            # The background is likely everywhere, and where it is not, scores differ.
            layer[1].weight.data.mul_(3)
            layer[1].bias.data[:: len(labels) + 1] += 6
    write_checkpoint(path, architecture, labels, network.state_dict(), arguments or {})
    return path


def write_tiny_ultralytics(path: Path) -> Path:
    """A checkpoint of YOLOv8n with random weights and four classes; its boxes mean nothing, but there are some of many scores."""
    import_confined()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=len(LABELS), verbose=False)
    model.names = dict(enumerate(LABELS))
    settle(model, 320)
    for branch in model.model[-1].cv3:
        branch[-1].bias.data.fill_(-2)
        branch[-1].weight.data.mul_(4)
    torch.save({"model": model.eval()}, path)
    return path


def settle(network: torch.nn.Module, size: int, run: Callable[[torch.Tensor], object] | None = None) -> None:
    """Let one batch of noise set what the normalisations expect: in untrained networks signals fade from layer to layer."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        (run or network)(torch.randn(4, 3, size, size))
