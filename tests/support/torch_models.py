"""Models on torch for tests, with random weights."""

from collections.abc import Mapping
from pathlib import Path

import torch

from detectors.torchvision import build_network, write_checkpoint
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
    # Untrained, signals fade from layer to layer; one batch sets what the normalisations expect.
    normalisations = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in normalisations:
        layer.momentum = None
    head = getattr(network, "head", lambda _: None)
    with torch.no_grad():
        head(list(network.backbone(torch.randn(4, 3, 320, 320)).values()))
    write_checkpoint(path, architecture, labels, network.state_dict(), arguments or {})
    return path
