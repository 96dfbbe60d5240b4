"""Whether a data set is fit to train on: its pictures, its boxes, its balance, and whether its splits know of each other."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from detectors.policy import ImagePolicy
from detectors.training.checks_of_labels import check_labels
from detectors.training.dataset import Dataset, Picture
from detectors.training.findings import CheckPolicy, CheckReport, Finding, Kind
from detectors.training.fingerprints import Fingerprint, take_fingerprints
from detectors.training.likeness import group_alike


def check_dataset(
    splits: Mapping[str, Dataset],
    policy: CheckPolicy,
    images: ImagePolicy,
    watch: Callable[[int], object] = lambda _: None,
) -> CheckReport:
    """Look at everything that can be told without training; decodes every picture. `splits`: as `read_splits` gives them.

    `watch` gets the number of pictures done since it was last called. Raises ConfigurationError without the extra.
    """
    files = [picture.file for dataset in splits.values() for picture in dataset.pictures]
    present = [file for file in dict.fromkeys(files) if file.is_file()]
    prints = take_fingerprints(present, images, watch)
    findings = chain(
        *(_check_pictures(split, dataset, prints, policy) for split, dataset in splits.items()),
        *(_check_balance(split, dataset, policy) for split, dataset in splits.items()),
        _check_likeness(_entries(splits, prints), policy),
    )
    objects = {split: _count_objects(dataset) for split, dataset in splits.items()}
    return CheckReport(
        {split: len(dataset.pictures) for split, dataset in splits.items()},
        {split: sum(not picture.labels for picture in dataset.pictures) for split, dataset in splits.items()},
        {split: {name: objects[split][place] for place, name in enumerate(d.names)} for split, d in splits.items()},
        tuple(findings),
    )


def _check_pictures(
    split: str, dataset: Dataset, prints: Mapping[Path, Fingerprint | str], policy: CheckPolicy
) -> Iterator[Finding]:
    for picture in dataset.pictures:
        found = prints.get(picture.file)
        of_picture = (picture.file,)
        if found is None:
            yield Finding(Kind.MISSING_PICTURE, "there is no such file", split, of_picture)
        elif isinstance(found, str):
            yield Finding(Kind.BROKEN_PICTURE, found, split, of_picture)
        elif found.frame != (picture.width, picture.height):
            width, height = found.frame
            what = f"{picture.width}x{picture.height} by its annotation, {width}x{height} in truth, turned upright"
            yield Finding(Kind.SIZE_MISMATCH, what, split, of_picture)
        for kind, what in check_labels(picture, dataset.names, policy):
            yield Finding(kind, what, split, of_picture)


def _count_objects(dataset: Dataset) -> Counter[int]:
    return Counter(label.class_id for picture in dataset.pictures for label in picture.labels if not label.crowd)


def _check_balance(split: str, dataset: Dataset, policy: CheckPolicy) -> Iterator[Finding]:
    if not dataset.pictures:
        yield Finding(Kind.EMPTY_SPLIT, "there is no picture in it", split)
        return
    counts = _count_objects(dataset)
    if not counts:
        yield Finding(Kind.NO_OBJECTS, "none of the pictures has an object", split)
        return
    unused = [name for place, name in enumerate(dataset.names) if not counts[place]]
    if unused:
        yield Finding(Kind.UNUSED_CLASS, f"no object is of {', '.join(unused)}", split)
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    if many > policy.imbalance * few:
        names = dataset.names
        yield Finding(
            Kind.IMBALANCE, f"{many:,} of {names[most]}, {few:,} of {names[least]}: {many / few:.0f} to 1", split
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    split: str
    picture: Picture
    fingerprint: Fingerprint


def _entries(splits: Mapping[str, Dataset], prints: Mapping[Path, Fingerprint | str]) -> list[_Entry]:
    """Every picture that could be read."""
    return [
        _Entry(split, picture, found)
        for split, dataset in splits.items()
        for picture in dataset.pictures
        if isinstance(found := prints.get(picture.file), Fingerprint)
    ]


def _check_likeness(entries: Sequence[_Entry], policy: CheckPolicy) -> Iterator[Finding]:
    by_content: dict[str, list[_Entry]] = {}
    for entry in entries:
        by_content.setdefault(entry.fingerprint.sha256, []).append(entry)
    for same in by_content.values():
        if len(same) > 1:
            yield from _judge_same(same)
    # Of pictures that are the same, one stands for all of a split.
    different = list({(entry.fingerprint.sha256, entry.split): entry for entry in entries}.values())
    for group in group_alike([entry.fingerprint for entry in different], policy.near_bits):
        alike = [different[place] for place in group]
        if len({entry.fingerprint.sha256 for entry in alike}) > 1:
            yield _judge_alike(alike, Kind.NEAR_LEAK, Kind.NEAR_DUPLICATE, "nearly the same picture")


def _judge_same(same: Sequence[_Entry]) -> Iterator[Finding]:
    yield _judge_alike(same, Kind.LEAK, Kind.DUPLICATE, "the same picture")
    if len({frozenset(entry.picture.labels) for entry in same}) > 1:
        files = tuple(entry.picture.file for entry in same)
        what = f"the same picture as {_name(files[1:])}, with other labels"
        yield Finding(Kind.CONFLICTING_LABELS, what, same[0].split, files)


def _judge_alike(alike: Sequence[_Entry], leak: Kind, duplicate: Kind, how: str) -> Finding:
    """One finding for a group: a leak where it spans splits."""
    files = tuple(entry.picture.file for entry in alike)
    splits = list(dict.fromkeys(entry.split for entry in alike))
    kind = leak if len(splits) > 1 else duplicate
    return Finding(kind, f"{how} as {_name(files[1:])}", "+".join(splits), files)


def _name(files: Iterable[Path], shown: int = 3) -> str:
    names = list(map(str, files))
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
