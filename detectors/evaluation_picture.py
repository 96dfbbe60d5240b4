"""An evaluation as pictures: precision-recall curves, calibration, confusion."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from detectors.evaluation import Evaluation
from schemas.errors import ConfigurationError

_RECALLS = np.linspace(0, 1, 101)
# More lines than this cannot be told apart by a legend, more cells not read.
_NAMED = 10


def draw_pictures(evaluation: Evaluation, title: str, directory: Path) -> None:
    """Write `curves.png`, `calibration.png` and `confusion.png` into a directory, which is made.

    Raises ConfigurationError without the extra, or where the place cannot be written.
    """
    drawers = {"curves": draw_curves, "calibration": draw_calibration, "confusion": draw_confusion}
    for name, draw in drawers.items():
        figure = draw(evaluation, title)
        path = directory / f"{name}.png"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        except OSError as error:
            raise ConfigurationError(f"cannot write the picture {path}: {error.strerror}") from error


def draw_curves(evaluation: Evaluation, title: str) -> Any:
    """A figure of precision by recall at IoU 0.5: each class thin, their mean thick."""
    figure = _figure()
    axes = figure.add_subplot()
    shown = [score for score in evaluation.classes if score.objects]
    named = len(shown) <= _NAMED
    for score in shown:
        label = f"{score.label} {score.map50:.3f}" if named else None
        axes.plot(_RECALLS, score.curve, linewidth=1, alpha=0.9 if named else 0.35, label=label)
    if shown:
        mean = np.mean([score.curve for score in shown], axis=0)
        label = f"mean of {len(shown)} classes, mAP50 {evaluation.map50:.3f}"
        axes.plot(_RECALLS, mean, linewidth=3, color="black", label=label)
        axes.legend(loc="lower left", fontsize="small")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.grid(visible=True, alpha=0.3)
    return figure


def draw_calibration(evaluation: Evaluation, title: str) -> Any:
    """A reliability diagram: the share that is correct by score, and below how many detections that is of."""
    figure, found = _figure(), evaluation.calibration
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    counts, scores, shares = (
        np.array(column) for column in (zip(*found.bins, strict=True) if found.bins else ([],) * 3)
    )
    above.plot((0, 1), (0, 1), linestyle="--", color="grey", label="calibrated")
    error = "" if found.error is None else f", expected error {found.error:.3f}"
    above.plot(scores, shares, marker="o", color="tab:blue", label=f"detections above {found.floor:g}{error}")
    above.set(ylabel="share correct", xlim=(0, 1), ylim=(0, 1.02), title=title)
    above.legend(loc="upper left", fontsize="small")
    below.bar(scores, counts, width=0.06, color="tab:blue")
    below.set(xlabel="score", ylabel="detections")
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
    return figure


def draw_confusion(evaluation: Evaluation, title: str) -> Any:
    """Objects by the class that they were detected as; shades are shares of a row, the numbers counts."""
    figure, confusion = _figure(), evaluation.confusion
    axes = figure.add_subplot()
    counts, places = confusion.counts, range(len(confusion.labels))
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    if len(places) <= _NAMED:
        for row, column in np.ndindex(counts.shape):
            dark = counts[row, column] > counts[row].sum() / 2
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(places, confusion.labels, rotation=45 if len(places) <= _NAMED else 90, ha="right")
    axes.set_yticks(places, confusion.labels)
    axes.set(xlabel="detected", ylabel="there is", title=f"{title}, at {confusion.confidence:.2f}")
    return figure


def import_matplotlib() -> tuple[Any, Any]:
    """Matplotlib's modules of figures and of the Agg renderer. Raises ConfigurationError without the extra."""
    try:
        return importlib.import_module("matplotlib.figure"), importlib.import_module("matplotlib.backends.backend_agg")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a picture needs {error.name}, which is not installed: pip install 'sightstream[evaluate]'"
        ) from error


def _figure() -> Any:
    """A figure of its own, drawn without a display and without pyplot's global state."""
    figures, renderer = import_matplotlib()
    figure = figures.Figure(figsize=(7, 5), dpi=120, layout="constrained")
    renderer.FigureCanvasAgg(figure)
    return figure
