"""Which score to ask for: by the best F1, or by the precision that is wanted. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation_matching import Matches


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A score to ask for, and the precision and recall of what scores at least as much, over all classes together."""

    confidence: float
    precision: float
    recall: float


def confidence_for_precision(matches: Matches, wanted: float) -> OperatingPoint | None:
    """The lowest score at which `wanted` of what is detected is right, 0..1; None where no score reaches that.

    So a shipped model's confidence can be chosen on data that it was neither trained nor is judged on. Precision need not fall evenly
    with the score: above the one returned it may dip below what is wanted.
    """
    scores, hits, ranks = _by_score(matches)
    good = np.flatnonzero(hits >= wanted * ranks)
    if not len(good):
        return None
    last = good[-1]
    recall = float(hits[last] / matches.objects) if matches.objects else 0.0
    return OperatingPoint(float(scores[last]), float(hits[last] / ranks[last]), recall)


def confidence_for_f1(matches: Matches) -> float:
    """The score to ask for to have the best F1 of all classes together; 0 where nothing was detected."""
    scores, hits, ranks = _by_score(matches)
    if not len(scores):
        return 0.0
    # F1 = 2 TP / (detections + objects)
    return float(scores[(2 * hits / (ranks + matches.objects)).argmax()])


def _by_score(matches: Matches) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Each score there is, falling, with how many of at least that score are right and how many there are."""
    order = np.argsort(-matches.scores, kind="stable")
    scores = matches.scores[order]
    # Those of equal score come all or not at all.
    lasts = np.flatnonzero(np.append(scores[1:] != scores[:-1], np.ones(min(len(scores), 1), np.bool_)))
    return scores[lasts], np.cumsum(matches.correct[order], dtype=np.int64)[lasts], (lasts + 1).astype(np.int64)
