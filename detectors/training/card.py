"""The model card: what a person should know before using a model, in Markdown. It says what the manifest says, and what it is given."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectors.training.manifest import Manifest, Threshold, describe_comparison


def write_card(manifest: Manifest, model_bytes: int, about: str = "") -> str:
    """The card. `about`: Markdown that stands after the title: what the model is for, its limits, how to make it again."""
    sections = [
        f"# {manifest.name}",
        about.strip(),
        _facts(manifest, model_bytes),
        f"## Threshold\n{_threshold(manifest.threshold, manifest.metrics)}",
        f"## Metrics\n{_metrics(manifest.metrics)}",
        f"## The same on every backend\n{_parity(manifest)}",
        f"## Where it comes from\n{_lineage(manifest.lineage)}",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _facts(manifest: Manifest, model_bytes: int) -> str:
    size = manifest.image_size
    rows = [
        ("version", manifest.version),
        ("digest", f"`{manifest.digest}`"),
        ("classes", ", ".join(f"`{label}`" for label in manifest.labels)),
        ("input", f"RGB in 0..1, any batch, sides any multiple of {manifest.stride}; evaluated at {size} x {size}"),
        ("size", f"{manifest.parameters:,} parameters, {model_bytes / 1e6:.2f} MB of ONNX, weights kept in float16"),
        ("licence", manifest.licence or "not stated"),
    ]
    return _table(("", ""), rows)


def _threshold(threshold: Threshold | None, metrics: Mapping[str, Any] | None) -> str:
    if threshold is None:
        return "None was chosen: detections need the engine's default score of 0.25 unless a request says another."
    said = f"Detections need a score of {threshold.confidence:g} unless a request says another. "
    if threshold.precision is None:
        return said + "It was given by hand."
    judged = metrics is not None and metrics["annotations"] == threshold.data
    same = (
        " These are the pictures that it is judged on below, too, which flatters precision and recall."
        if judged
        else ""
    )
    chosen = (
        "where F1, the harmonic mean of precision and recall, is best"
        if threshold.wanted is None
        else f"the lowest score at which {threshold.wanted:.0%} of what is detected is right"
    )
    return said + (
        f"It is {chosen}, on {threshold.images} labelled pictures "
        f"(annotations `{threshold.data}`): there, precision {_share(threshold.precision)} and recall {_share(threshold.recall)}.{same}"
    )


def _metrics(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not evaluated."
    head = ("class", "objects", "mAP50", "mAP50-95", "precision", "recall")
    names = ("objects", "map50", "map50_95", "precision", "recall")
    rows = [(entry["label"], *(_figure(entry[name]) for name in names)) for entry in metrics["classes"]]
    rows.append(("**all**", *(_figure(metrics[name]) for name in names)))
    sliced = [
        (f"{entry['slicing']}: {entry['name']}", *(_figure(entry[name]) for name in (*names[:3], "recall")))
        for entry in metrics["slices"]
    ]
    about = (
        f"{metrics['images']} pictures (annotations `{metrics['annotations']}`), on {metrics['backend']}; precision and recall "
        f"at a score of {metrics['confidence']:.3f}."
    )
    tables = [_table(head, rows), *([_table(("slice", *head[1:4], "recall"), sliced)] if sliced else [])]
    return "\n\n".join([about, *tables])


def _parity(manifest: Manifest) -> str:
    head = ("boxes compared", "beyond tolerance", "least IoU", "greatest difference of scores", "holds")
    rows = [
        (
            entry["what"],
            str(entry["boxes"]),
            str(entry["beyond"]),
            f"{entry['worst_iou']:.4f}",
            f"{entry['worst_score_drift']:.4f}",
            "yes" if entry["holds"] else "**no**",
        )
        for entry in map(describe_comparison, manifest.parity)
    ]
    return (
        "Picture by picture; the first in float32 against torch, where it was trained, the others against the first:\n\n"
        + _table(("what", *head), rows)
    )


def _lineage(lineage: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in lineage["validation"].items())
    rows = [
        ("training data", f"`{lineage['data']}`"),
        ("code", f"`{lineage['code']}`"),
        ("checkpoint", f"`{lineage['checkpoint']}`"),
        ("optimisation steps", str(lineage["step"])),
        ("on the validation set", scores or "not evaluated"),
    ]
    return _table(("", ""), rows) + "\n\nThe recipe, whole, is in `manifest.json`."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
