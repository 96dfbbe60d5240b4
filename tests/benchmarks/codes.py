"""How many codes the shipped detector finds in real pictures, none of which it was made from, and how fast, beside OpenCV's detectors."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.codes_course import as_boxes, count, find_codes, sheet_path, spec_of, write_megapixels
from tests.benchmarks.codes_sheet import draw_sheet, failures_of
from tests.benchmarks.codes_truth import CLASSES, judge, read_pictures
from tests.benchmarks.engine_course import run_side
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage
from tests.support.data import ROOT

ROUNDS = 3
ENGINE, OPENCV = "the shipped detector", "OpenCV's detectors"
# The fast side gets all pictures several times, so that it is not done at once.
REPEATS = {ENGINE: 4, OPENCV: 1}
REAL, MEGAPIXEL = "real", "megapixel"


def run(stage: Backstage) -> Section:
    """Both sides in turn, each a process of its own, on the same files; boxes are judged once, as they do not change."""
    pictures = read_pictures()
    files = {REAL: [str(picture.file) for picture in pictures], MEGAPIXEL: write_megapixels(stage)}
    rates: dict[str, dict[str, list[float]]] = {side: {name: [] for name in files} for side in (ENGINE, OPENCV)}
    engine = {"way": "stream", "spec": spec_of(stage), "cache": str(stage.scratch / "engine")}
    for number in range(ROUNDS):
        for side in in_turn(rates, number):
            for name, paths in files.items():
                given = paths * REPEATS[side]
                module, task = ("engine", engine) if side == ENGINE else ("opencv", {})
                said = run_side(module, {**task, "paths": given}, stage.scratch)
                rates[side][name].append(len(given) / said["seconds"])
            stage.say(f"round {number + 1}: {side} {rates[side][REAL][-1]:.1f} images/s")
    model, found = find_codes(stage, pictures)
    theirs = run_side("opencv", {"paths": files[REAL]}, stage.scratch)["boxes"]
    boxes = {ENGINE: found, OPENCV: [as_boxes(rows) for rows in theirs]}
    verdicts = {side: [judge(*pair) for pair in zip(pictures, boxes[side], strict=True)] for side in boxes}
    failed = failures_of(pictures, found, verdicts[ENGINE])
    draw_sheet(failed, sheet_path(ROOT))
    stage.say(f"the {len(failed)} pictures in which {ENGINE} failed: {sheet_path(ROOT)}")
    counts = {side: count(pictures, verdicts[side]) for side in verdicts}
    return Section(
        name="codes",
        title="Machine-readable codes in real pictures",
        how=_how(model, len(pictures), counts[ENGINE]),
        columns=_columns(counts[ENGINE]),
        rows=[_row(side, counts[side], rates[side]) for side in counts],
        targets=_targets(counts),
        figures={
            "model": model,
            "counts": counts,
            "rates": rates,
            "failed": [picture.file.name for picture, _, _ in failed],
        },
    )


def _how(model: Mapping[str, Any], pictures: int, counts: Mapping[str, Any]) -> str:
    return (
        f"{pictures} photographs, scans and screenshots, the test samples of zxing-cpp, on which nothing was trained or chosen; "
        f"{model['model']} ({model['digest'][:19]}) in {model['precision']} at its own threshold, through the engine. Known are codes "
        f"whose place a decoder told ({counts['known']['all']}); class and place must be right: IoU 0.5, or for linear codes, of which a "
        "decoder tells only a part of the height, 0.8 of that part within the box and its length at least 0.6 of the box's. Unread are "
        "pictures of a code that no decoder read: a box of its class anywhere. Alarms are pictures of no code, but of something like "
        "one, in which anything was found. OpenCV has no detector of Data Matrix. Images a second from file to boxes on all cores, "
        f"{ROUNDS} rounds in turn, medians; of these pictures, and of photographs of a megapixel as JPEG, {REPEATS[ENGINE]} times over "
        "by the faster side."
    )


def _columns(counts: Mapping[str, Any]) -> tuple[str, ...]:
    known = counts["known"]
    names = {"qr": "QR", "datamatrix": "Data Matrix", "barcode": "linear"}
    return (
        "side",
        *(f"{names[label]}, of {known[label]}" for label in CLASSES),
        f"all, of {known['all']}",
        f"unread, of {counts['placeless']}",
        f"alarms, of {counts['look_alikes']}",
        "images/s",
        "images/s, megapixel",
    )


def _row(side: str, counts: Mapping[str, Any], rates: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    found, known = counts["found"], counts["known"]
    return (
        side,
        *(f"{found[label]} ({found[label] / max(known[label], 1):.2f})" for label in (*CLASSES, "all")),
        str(counts["suspected"]),
        str(counts["alarms"]),
        *(f"{statistics.median(rates[name]):.0f}" for name in (REAL, MEGAPIXEL)),
    )


def _targets(counts: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    ours, theirs = counts[ENGINE], counts[OPENCV]
    found, known = ours["found"], ours["known"]
    return [
        Target(what="share of known codes that is found", measured=found["all"] / known["all"], wanted=0.92),
        *(
            Target(what=f"share of {label}", measured=found[label] / known[label], wanted=0.85)
            for label in CLASSES
            if known[label]
        ),
        Target(what="look-alikes alarmed", measured=ours["alarms"], wanted=2, at_least=False),
        Target(what="codes found, over OpenCV", measured=found["all"] / max(theirs["found"]["all"], 1), wanted=1),
    ]
