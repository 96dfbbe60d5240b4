"""A diff as tables for a terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from infra.text_table import table
from sinks.diff_core import Change

if TYPE_CHECKING:
    from sinks.diff_report import DiffReport
    from sinks.diff_tally import Summary

_MOST_CONFUSIONS, _MOST_IMAGES = 10, 10


def tell_diff(report: "DiffReport") -> str:
    """What was compared and what came out, a paragraph each."""
    parts = ["\n".join(_facts(report)), _classes(report), _intervals(report.total), *_rest(report)]
    return "\n\n".join(parts)


def _facts(report: "DiffReport") -> Iterator[str]:
    for name, side in (("A", report.first), ("B", report.second)):
        yield f"{name}  {side.text}: {side.images} images by {', '.join(side.versions)}"
    left = f"{report.only_first} only in A, {report.only_second} only in B, {report.reframed} of another size"
    yield f"{report.images} images compared ({left})"


def _classes(report: "DiffReport") -> str:
    rows = [*report.classes.items(), ("all classes", report.total)]
    return table(
        ("class", "objects", *Change, "not agreed on"),
        [
            (
                label,
                str(summary.objects),
                *(str(summary.counts[change]) for change in Change),
                f"{summary.disagreement.share:.2%}",
            )
            for label, summary in rows
        ],
    )


def _intervals(total: "Summary") -> str:
    shares = [*((str(change), total.shares[change]) for change in Change), ("not agreed on", total.disagreement)]
    rows = [(name, f"{of.share:.2%}", f"{of.low:.2%} to {of.high:.2%}") for name, of in shares]
    return table(("of all objects", "share", "95 %"), rows)


def _rest(report: "DiffReport") -> Iterator[str]:
    if report.confusions:
        rows = [(f"{one} as {two}", str(often)) for one, two, often in report.confusions[:_MOST_CONFUSIONS]]
        yield table(("reclassified", "objects"), rows)
    if report.accuracy is not None:
        sides = zip("AB", report.accuracy, strict=True)
        scores = [(name, str(of.images), f"{of.map50:.4f}", f"{of.map50_95:.4f}") for name, of in sides]
        yield table(("against the truth", "images", "mAP50", "mAP50-95"), scores)
    if report.worst:
        images = [(pair.image_id, f"{pair.badness:.2f}") for pair in report.worst[:_MOST_IMAGES]]
        yield table(("differs most", "by"), images)
