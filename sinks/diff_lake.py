"""Results out of Parquet files, as the sink wrote them."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError
from sinks.diff_side import NEEDED

_ROWS_AT_ONCE = 10_000


def read_lake(place: Path, columns: Collection[str] = NEEDED) -> Iterator[pa.RecordBatch]:
    """The results in a folder of Parquet files, or in one, file by file in the order of their names.

    `columns`: those that are wanted; files of a release that did not know one yet lack it. Files and folders whose names begin with `_` or
    `.` are work in progress. Raises ConfigurationError where there is none, or one is not of results.
    """
    files = (
        [place] if place.is_file() else sorted(filter(lambda path: _is_shown(path, place), place.rglob("*.parquet")))
    )
    if not files:
        raise ConfigurationError(f"there is no Parquet file in {place}")
    for path in files:
        yield from _read(path, columns)


def _read(path: Path, columns: Collection[str]) -> Iterator[pa.RecordBatch]:
    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        if missing := {"image_id", "detections"} - names:
            raise ConfigurationError(f"{path} holds no results: it has no column {' or '.join(sorted(missing))}")
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=[name for name in columns if name in names])
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from error


def _is_shown(path: Path, root: Path) -> bool:
    return not any(part.startswith(("_", ".")) for part in path.relative_to(root).parts)
