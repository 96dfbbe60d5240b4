"""`sightstream data`: make, bring in, look over, divide and multiply the pictures that a model is trained on."""

import click

from infra.lazy_group import LazyGroup

_PARTS = {
    "synth": ("data_synth", "Draw scenes of machine-readable codes, with their truth."),
    "import": ("data_import", "Bring in labels of COCO, Pascal VOC or YOLO."),
    "check": ("data_check", "Look for broken or double pictures, wrong boxes, leaks between splits."),
    "split": ("data_split", "Divide a data set into train, val and test."),
    "augment": ("data_augment", "Add changed copies of every picture."),
}


@click.group("data", cls=LazyGroup, parts=_PARTS)
def command() -> None:
    """Make, bring in, look over, divide and multiply the pictures that a model is trained on."""
