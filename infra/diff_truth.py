"""Scores what was found in images against ground truth, for a diff: by the evaluation that `sightstream evaluate` has."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np

from detectors.base import Boxes
from detectors.evaluation import evaluate
from detectors.evaluation_truth import ClassMap, GroundTruth
from schemas.errors import ConfigurationError
from sinks.diff_core import Seen
from sinks.diff_report import Accuracy, Scorer


def scorer(truth: GroundTruth) -> Scorer:
    """A scorer over this truth. An image is known by the name of its file; of several with one name, by the end of its path.

    Of images that were submitted several times the first counts. The scorer raises ConfigurationError where no image or no label is known.
    """
    files = _Files(truth.files)

    def score(images: Sequence[tuple[str, Seen]]) -> Accuracy:
        known: dict[int, Seen] = {}
        for uri, seen in images:
            if (image_id := files.find(uri)) is not None:
                known.setdefault(image_id, seen)
        if not known:
            raise ConfigurationError("the ground truth knows none of the images that were compared")
        return _evaluate(truth, known)

    return score


class _Files:
    """Which image of the truth a URI names."""

    def __init__(self, files: Mapping[int, str]) -> None:
        self._by_name: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        for image_id, name in files.items():
            parts = PurePosixPath(name).parts
            self._by_name[parts[-1]].append((parts, image_id))

    def find(self, uri: str) -> int | None:
        parts = PurePosixPath(unquote(urlsplit(uri).path)).parts
        candidates = self._by_name.get(parts[-1], []) if parts else []
        ends = [image_id for name, image_id in candidates if parts[-len(name) :] == name]
        if len(candidates) == 1:
            return candidates[0][1]
        return ends[0] if len(ends) == 1 else None


def _evaluate(truth: GroundTruth, images: Mapping[int, Seen]) -> Accuracy:
    categories = {_plain(name): category_id for category_id, name in truth.categories.items()}
    seen = {_plain(str(label)) for boxes in images.values() for label in boxes.labels}
    if seen.isdisjoint(categories) and seen:
        some = ", ".join(sorted(seen)[:5])
        raise ConfigurationError(f"the ground truth has none of the labels that were found ({some} ...)")
    # What the truth knows and this side never found belongs to its figures, too.
    labels = sorted(seen | set(categories))
    classes = ClassMap(tuple(categories.get(label) for label in labels))
    found = evaluate(truth, list(images), _boxes(list(images.values()), labels), classes)
    return Accuracy(len(images), found.map50, found.map50_95)


def _boxes(images: Sequence[Seen], labels: Sequence[str]) -> Boxes:
    numbers = {label: number for number, label in enumerate(labels)}
    # Detectors give the best first, and so does this.
    orders = [np.argsort(-seen.scores, kind="stable") for seen in images]
    ids = [[numbers[_plain(str(s.labels[at]))] for at in order] for s, order in zip(images, orders, strict=True)]
    return Boxes(
        np.cumsum([0, *map(len, ids)], dtype=np.int32),
        np.concatenate([np.empty((0, 4), np.float32), *(s.xyxy[o] for s, o in zip(images, orders, strict=True))]),
        np.concatenate([np.empty(0, np.float32), *(s.scores[o] for s, o in zip(images, orders, strict=True))]),
        np.array([number for one in ids for number in one], np.int32),
    )


def _plain(label: str) -> str:
    return label.strip().casefold()
