"""The precision-recall curves of an evaluation as a picture."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from detectors.evaluation import Evaluation
from schemas.errors import ConfigurationError

_RECALLS = np.linspace(0, 1, 101)
# More lines than this cannot be told apart by a legend.
_NAMED = 10


def draw_curves(evaluation: Evaluation, title: str, path: Path) -> None:
    """Write a picture, of the format that the suffix of `path` names: each class thin, their mean thick, at IoU 0.5.

    Raises ConfigurationError without the extra, or where the format is unknown or the place cannot be written.
    """
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
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot write the picture {path}: {error}") from error


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
