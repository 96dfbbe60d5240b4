"""Boxes of many results at once, column by column, as the JSON that clients get."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

_quote = json.encoder.encode_basestring_ascii  # one C call; pure ASCII, so that characters are bytes


def box_texts(column: pa.ListArray) -> Iterator[tuple[str, dict[str, float]]]:
    """For each row of `detections` its boxes as the inside of a JSON array, ASCII, and the best score of each label."""
    items = column.flatten()
    ends = np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))
    labels, classes = items.field("label").to_pylist(), items.field("class_id").to_pylist()
    scores = rounded(items.field("score"), 4)
    corners = zip(*(rounded(items.field(name), 2) for name in ("x1", "y1", "x2", "y2")), strict=True)
    texts = [
        f'{{"label":{_quote(label)},"class_id":{class_id},"score":{score},"box":[{x1},{y1},{x2},{y2}]}}'
        for label, class_id, score, (x1, y1, x2, y2) in zip(labels, classes, scores, corners, strict=True)
    ]
    start = 0
    for end in ends.tolist():
        best: dict[str, float] = {}
        for label, score in zip(labels[start:end], scores[start:end], strict=True):
            best[label] = max(score, best.get(label, 0.0))
        yield ",".join(texts[start:end]), best
        start = end


def rounded(column: pa.Array, decimals: int) -> Sequence[float]:
    """Floats that JSON can hold (0 for what is no number), rounded: the log keeps every digit."""
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    numbers: list[float] = np.round(np.nan_to_num(values, posinf=0.0, neginf=0.0), decimals).tolist()
    return numbers
