"""A data set divided into train, val and test: each class in its share, pictures that are nearly the same on one side, seeded."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

from detectors.policy import ImagePolicy
from detectors.training.dataset import Dataset, Picture
from detectors.training.fingerprints import Fingerprint, take_fingerprints
from detectors.training.folders import SPLITS, Named, Placement, new_folder, read_splits, write_pictures
from detectors.training.likeness import group_alike
from schemas.errors import ConfigurationError

# Pictures without objects are shared out as if they were of a class.
_BACKGROUND = -1


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """`shares`: of train, val, test; they add up to 1, and 0 leaves a split out. `near_bits`: as in `CheckPolicy`.

    The same seed divides the same pictures alike, wherever they lie and in whatever order.
    """

    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    near_bits: int = 6

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ConfigurationError(
                f"the shares {' '.join(map(str, self.shares))} are not of a whole: they must add up to 1"
            )


@dataclass(frozen=True, slots=True)
class _Group:
    """Pictures, by their places in the set, that stay together, and how many of them have each class."""

    places: tuple[int, ...]
    classes: Mapping[int, int]


def split_dataset(
    pictures: Sequence[Named],
    policy: SplitPolicy,
    images: ImagePolicy,
    watch: Callable[[int], object] = lambda _: None,
) -> dict[str, list[Named]]:
    """The pictures of each split, in the order in which they came; nothing is written.

    Every picture is decoded, to tell which are nearly the same: those are never divided. Raises ConfigurationError where one cannot be
    read, and where a split would be empty.
    """
    groups = _group([picture for picture, _ in pictures], policy, images, watch)
    parts = {
        name: [pictures[place] for place in sorted(place for group in part for place in group.places)]
        for name, part, share in zip(SPLITS, _stratify(groups, policy), policy.shares, strict=True)
        if share
    }
    if empty := [name for name, part in parts.items() if not part]:
        raise ConfigurationError(
            f"nothing is left for {empty[0]}: {len(pictures)} pictures in {len(groups)} groups that are nearly the same"
        )
    return parts


def write_split(
    parts: Mapping[str, Sequence[Named]],
    names: tuple[str, ...],
    out: Path,
    placement: Placement,
    watch: Callable[[int], object] = lambda _: None,
) -> dict[str, Dataset]:
    """Write the parts as the folder `out`; the data sets by split. Raises ConfigurationError, and leaves nothing behind."""
    with new_folder(out) as folder:
        for split, pictures in parts.items():
            write_pictures(folder / split, names, pictures, placement, watch)
    return read_splits(out)


def _group(
    pictures: Sequence[Picture], policy: SplitPolicy, images: ImagePolicy, watch: Callable[[int], object]
) -> list[_Group]:
    """Groups of pictures that are nearly the same, in an order that depends on what they show and on the seed alone."""
    taken = take_fingerprints(list(dict.fromkeys(picture.file for picture in pictures)), images, watch)
    prints = [_demand(taken[picture.file], picture.file) for picture in pictures]
    groups = sorted(
        group_alike(prints, policy.near_bits), key=lambda group: min(prints[place].sha256 for place in group)
    )
    Random(policy.seed).shuffle(groups)  # noqa: S311 - it divides, and guards nothing
    return [_Group(tuple(group), _count_classes(pictures[place] for place in group)) for group in groups]


def _demand(found: Fingerprint | str, file: Path) -> Fingerprint:
    if isinstance(found, str):
        raise ConfigurationError(
            f"the picture {file} cannot be read: {found}; `sightstream data check` names all of them"
        )
    return found


def _count_classes(pictures: Iterable[Picture]) -> Counter[int]:
    return Counter(
        class_id
        for picture in pictures
        for class_id in ({label.class_id for label in picture.labels if not label.crowd} or {_BACKGROUND})
    )


def _stratify(groups: Sequence[_Group], policy: SplitPolicy) -> list[list[_Group]]:
    """Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), of groups in place of single examples.

    The class with the fewest pictures left comes first, and of its groups the largest, each to the split that wants most of the class
    still, then most pictures; further ties go by chance.
    """
    chance = Random(policy.seed)  # noqa: S311
    shares = [Fraction(share).limit_denominator(10**9) for share in policy.shares]
    left = Counter[int]()
    for group in groups:
        left.update(group.classes)
    wanted = [Counter({class_id: share * count for class_id, count in left.items()}) for share in shares]
    room = [share * sum(len(group.places) for group in groups) for share in shares]
    by_class: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        for class_id in group.classes:
            by_class.setdefault(class_id, []).append(place)
    chosen: list[list[_Group]] = [[] for _ in shares]
    done: set[int] = set()
    while rest := {class_id: count for class_id, count in left.items() if count > 0}:
        rarest = min(rest, key=lambda class_id: (rest[class_id], class_id))
        places = [place for place in by_class[rarest] if place not in done]
        for place in sorted(places, key=lambda place: -groups[place].classes[rarest]):
            group = groups[place]
            best = max(
                (split for split, share in enumerate(shares) if share),
                key=lambda split: (wanted[split][rarest], room[split], chance.random()),
            )
            chosen[best].append(group)
            done.add(place)
            room[best] -= len(group.places)
            for class_id, count in group.classes.items():
                wanted[best][class_id] -= count
                left[class_id] -= count
    return chosen
