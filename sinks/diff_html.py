"""A diff as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from sinks.diff_core import Change
from sinks.diff_html_images import Pictures, image_cards
from sinks.diff_report import DiffReport, SideFacts
from sinks.diff_tally import Interval, Summary

_STYLE = Path(__file__).with_name("diff_style.css")
# Names and labels come from the log: should one ever slip through escaping, the page may still load and run nothing.
_NOTHING_ELSE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(report: DiffReport, pictures: Pictures) -> str:
    """The page; the same for the same report and pictures."""
    title = f"{report.first.text} and {report.second.text}"
    parts = [
        f"<h1>{escape(report.first.text)} \N{RIGHTWARDS ARROW} {escape(report.second.text)}</h1>",
        *_facts(report),
        "<h2>Objects</h2>",
        _classes(report),
        *_accuracy(report),
        *_confusions(report.confusions),
        "<h2>The images that differ most</h2>",
        _choice(report.worst != ()),
        *image_cards(report, pictures),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_NOTHING_ELSE)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}: what changed</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _facts(report: DiffReport) -> Iterable[str]:
    for name, side in (("A", report.first), ("B", report.second)):
        yield f"<p><b>{name}</b> {escape(side.text)}: {_made_by(side)}</p>"
    left = {
        "only in A": report.only_first,
        "only in B": report.only_second,
        "with pictures of different sizes": report.reframed,
    }
    apart = ", ".join(f"{count} {where}" for where, count in left.items() if count)
    yield f"<p>{report.images} images compared{f'; {apart}' if apart else ''}</p>"
    rules = report.policy
    yield (
        f'<p class="soft">One object from an IoU of {rules.match_iou:g}; moved below {rules.same_iou:g}; rescored by more than '
        f"{rules.same_score:g}; counted from a score of {rules.min_score:g} on. Intervals are of 95 %, over images.</p>"
    )


def _made_by(side: SideFacts) -> str:
    older = f", {side.superseded} older results left out" if side.superseded else ""
    return f"{side.images} images by {escape(', '.join(side.versions))}{older}"


def _classes(report: DiffReport) -> str:
    head = [
        "class",
        "objects",
        "",
        "not agreed on",
        *(f'<span class="mark {change}"></span>{change}' for change in Change),
    ]
    rows = [("all classes", report.total), *report.classes.items()]
    return _table(head, [_class_row(label, summary) for label, summary in rows])


def _class_row(label: str, summary: Summary) -> list[str]:
    shares = "".join(
        f'<span class="{change}" style="width:{interval.share:.4%}"></span>'
        for change, interval in summary.shares.items()
        if interval.share
    )
    of = summary.disagreement
    return [
        escape(label),
        str(summary.objects),
        f'<div class="bar">{shares}</div>',
        f"{of.share:.2%}<small>{_reach(of)}</small>",
        *(f"{summary.counts[change]}{_interval(summary.shares[change])}" for change in Change),
    ]


def _interval(interval: Interval) -> str:
    return f"<small>{interval.share:.2%}</small><small>{_reach(interval)}</small>"


def _reach(interval: Interval) -> str:
    return f"{interval.low * 100:.2f} to {interval.high * 100:.2f}"


def _accuracy(report: DiffReport) -> Iterable[str]:
    if report.accuracy is None:
        return
    yield "<h2>Against ground truth</h2>"
    one, two = report.accuracy
    yield _table(
        ["", "images", "mAP50", "mAP50-95"],
        [
            ["A", str(one.images), f"{one.map50:.4f}", f"{one.map50_95:.4f}"],
            ["B", str(two.images), f"{two.map50:.4f}", f"{two.map50_95:.4f}"],
            ["B - A", "", f"{two.map50 - one.map50:+.4f}", f"{two.map50_95 - one.map50_95:+.4f}"],
        ],
    )


def _confusions(confusions: Sequence[tuple[str, str, int]], most: int = 20) -> Iterable[str]:
    if confusions:
        yield "<h2>Reclassified</h2>"
        yield _table(
            ["in A", "in B", "objects"],
            [[escape(one), escape(two), str(often)] for one, two, often in confusions[:most]],
        )


def _choice(shown: bool) -> str:
    if not shown:
        return "<p>None: every object is as it was.</p>"
    boxes = (
        f'<label><input type="checkbox" id="show-{change}" checked> <span class="mark {change}"></span>{change}</label>'
        for change in Change
    )
    return f'<div class="choice">{"".join(boxes)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    titles = "".join(f"<th>{cell}</th>" for cell in head)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
