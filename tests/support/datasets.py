"""Small data sets with real pictures, drawn on the spot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from detectors.training.dataset import IMAGES, Dataset, Label, Picture, write_dataset
from tests.support.images import encode, photograph

WIDTH, HEIGHT = 96, 64
BOX = (10.0, 12.0, 40.0, 44.0)


def draw_dataset(
    folder: Path, labels: Mapping[str, Sequence[Label]], names: Sequence[str] = ("cat", "dog"), first_seed: int = 0
) -> Dataset:
    """A data set of pictures of 96x64 pixels, each of a seed of its own, so that no two are alike."""
    (folder / IMAGES).mkdir(parents=True)
    pictures = []
    for seed, (name, of_picture) in enumerate(labels.items(), first_seed):
        file = folder / IMAGES / name
        save(file, photograph(seed, WIDTH, HEIGHT))
        pictures.append(Picture(file, WIDTH, HEIGHT, tuple(of_picture)))
    return write_dataset(folder, names, pictures)


def save(file: Path, image: Image.Image, quality: int = 90) -> None:
    """The picture as a JPEG, or as a PNG where the file is called so."""
    kind = "PNG" if file.suffix == ".png" else "JPEG"
    file.write_bytes(encode(image, kind, quality=quality))
