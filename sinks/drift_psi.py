"""The population stability index of two histograms, and how much of it is chance.

PSI is Jeffreys' divergence, sum((p - q) * ln(p / q)) (H. Jeffreys, Proc. R. Soc. A 186, 1946; its use, and 0.1 and 0.25 as its rule of
thumb: N. Siddiqi, Credit Risk Scorecards, Wiley 2006). Where nothing changed it is distributed as (1/m + 1/n) * chi-square with B - 1
degrees of freedom for m and n samples in B bins (B. Yurdakul, J. Naranjo, J. Risk Model Validation 14(4), 2020). Quantiles of chi-square:
E. B. Wilson, M. M. Hilferty, PNAS 17(12), 1931.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]

# Half a sample in each bin (Krichevsky and Trofimov's estimator): an empty bin must not make the index infinite.
_PRIOR = 0.5


def psi(expected: Shares, actual: Shares) -> float:
    """The index of two distributions over the same bins, all shares above 0. At least 0; 0 only for equal ones; symmetric."""
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def shares(counts: Counts) -> Shares:
    """The distribution that a histogram speaks for. No share is 0."""
    smoothed = counts.astype(np.float64) + _PRIOR
    distribution: Shares = smoothed / smoothed.sum()
    return distribution


def grouped(reference: Counts, window: Counts, bins: int = 10) -> tuple[Counts, Counts]:
    """Both histograms with neighbouring bins joined, so that about the same share of the reference lies in each of at most `bins`.

    The outermost bins are open: what lies beyond the reference counts as theirs.
    """
    total = max(int(reference.sum()), 1)
    middles = (np.cumsum(reference) - reference / 2) / total
    _, groups = np.unique(np.minimum(middles * bins, bins - 1).astype(np.int64), return_inverse=True)
    return _joined(reference, groups), _joined(window, groups)


def pooled(reference: Counts, window: Counts, least: float = 0.01) -> tuple[Counts, Counts]:
    """Both histograms of classes with those pooled into one last bin that are less than this share of the reference, or not in it."""
    rare = reference < max(least * int(reference.sum()), 1)
    if not rare.any():
        return reference, window
    return (
        np.append(reference[~rare], reference[rare].sum()),
        np.append(window[~rare], window[rare].sum()),
    )


def chance_psi(bins: int, reference: int, window: int, probability: float) -> float:
    """The index that two samples of the same distribution exceed with this probability; inf where one of them is empty.

    `reference` and `window` are the independent samples of each: images, since the boxes of one image have much in common.
    """
    if min(reference, window) < 1:
        return float("inf")
    if bins < 2:
        return 0.0
    freedom = bins - 1
    spread = 2 / (9 * freedom)
    quantile = freedom * max(1 - spread + NormalDist().inv_cdf(1 - probability) * spread**0.5, 0.0) ** 3
    return float(quantile * (1 / reference + 1 / window))


def _joined(counts: Counts, groups: NDArray[np.intp]) -> Counts:
    joined = np.zeros(int(groups.max()) + 1, np.int64)
    np.add.at(joined, groups, counts)
    return joined
