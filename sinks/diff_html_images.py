"""The worst images of a diff as HTML: each picture once, with the boxes of either side drawn over it as SVG."""

import base64
import io
import math
from collections.abc import Iterator, Mapping
from html import escape
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinks.diff_core import Change, Seen
from sinks.diff_pairs import ImagePair
from sinks.diff_report import DiffReport

Pictures = Mapping[tuple[str, str], bytes | str]
"""(tenant, image id) -> a JPEG of the picture, or why there is none."""

_QUALITY = 80


def shrink(pixels: NDArray[np.uint8], max_side: int = 960) -> bytes:
    """A JPEG of a picture (uint8, RGB, (height, width, 3)) that fits into a page; encoded anew, so without metadata."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((max_side, max_side))
    out = io.BytesIO()
    picture.save(out, "jpeg", quality=_QUALITY)
    return out.getvalue()


def image_cards(report: DiffReport, pictures: Pictures) -> Iterator[str]:
    """A card for each of the worst images."""
    for number, pair in enumerate(report.worst):
        picture = pictures.get((pair.tenant, pair.image_id), "it was not read")
        yield _card(pair, picture, f"picture-{number}", (report.first.text, report.second.text))


def _card(pair: ImagePair, picture: bytes | str, name: str, texts: tuple[str, str]) -> str:
    changes = ", ".join(f"{count} {change}" for change in Change if (count := pair.diff.count(change)))
    facts = " \N{MIDDLE DOT} ".join((_shown(pair.uri), pair.tenant, changes))
    sides = [
        f"<figure><figcaption>{letter}: {escape(text)}</figcaption>{_drawing(pair, second, picture, name)}</figure>"
        for letter, text, second in (("A", texts[0], False), ("B", texts[1], True))
    ]
    return (
        f'<article>{_symbol(pair, picture, name)}<h3>{escape(pair.image_id)}</h3><p class="soft">{escape(facts)}</p>'
        f'<div class="sides">{"".join(sides)}</div></article>'
    )


def _symbol(pair: ImagePair, picture: bytes | str, name: str) -> str:
    """The picture itself, which both sides show: so it is in the page once."""
    if isinstance(picture, str):
        return f'<p class="soft">No picture: {escape(picture)}</p>'
    width, height = pair.size
    data = base64.b64encode(picture).decode()
    return (
        '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
        f'<image id="{name}" width="{width}" height="{height}" preserveAspectRatio="none" href="data:image/jpeg;base64,{data}"/>'
        "</defs></svg>"
    )


def _drawing(pair: ImagePair, second: bool, picture: bytes | str, name: str) -> str:
    width, height = pair.size
    side, rows = (pair.second, pair.diff.second) if second else (pair.first, pair.diff.first)
    # What changed is drawn last, over what did not.
    order = sorted(range(pair.diff.objects), key=lambda row: pair.diff.changes[row] is not Change.SAME)
    boxes = "".join(_box(pair, row, side, int(rows[row])) for row in order if rows[row] >= 0)
    ground = f'<use href="#{name}"/>' if isinstance(picture, bytes) else ""
    return f'<svg viewBox="0 0 {max(width, 1)} {max(height, 1)}" role="img">{ground}{boxes}</svg>'


def _box(pair: ImagePair, row: int, side: Seen, at: int) -> str:
    change = pair.diff.changes[row]
    width, height = pair.size
    x1, y1, x2, y2 = (
        _within(value, most) for value, most in zip(side.xyxy[at].tolist(), (width, height) * 2, strict=True)
    )
    label = escape(f"{side.labels[at]} {side.scores[at]:.2f}")
    size = max(width, height) / 45
    # Above the box where there is room, else inside it.
    y = y1 - size * 0.3 if y1 > size * 1.2 else y1 + size * 1.05
    return (
        f'<g class="box {change}"><title>{escape(_told(pair, row))}</title>'
        f'<rect x="{x1:g}" y="{y1:g}" width="{max(x2 - x1, 0):g}" height="{max(y2 - y1, 0):g}"/>'
        f'<text x="{x1 + size * 0.2:g}" y="{y:g}" font-size="{size:g}">{label}</text></g>'
    )


def _told(pair: ImagePair, row: int) -> str:
    """An object in words, on either side."""
    sides = [
        "nothing" if label is None or score is None else f"{label} {score:.3f}"
        for label, score in zip(pair.labels(row), pair.scores(row), strict=True)
    ]
    iou = f", IoU {pair.diff.iou[row]:.3f}" if "nothing" not in sides else ""
    return f"{pair.diff.changes[row]}: {sides[0]} \N{RIGHTWARDS ARROW} {sides[1]}{iou}"


def _within(value: float, most: int) -> float:
    return round(min(max(value, 0.0), float(most)), 1) if math.isfinite(value) else 0.0


def _shown(uri: str) -> str:
    """A URI without what may be secret in it: user, password, signature."""
    try:
        parts = urlsplit(uri)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "no URI"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
