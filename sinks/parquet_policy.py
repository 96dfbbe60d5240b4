"""The knobs of the Parquet sink, apart from it so that reading settings loads no Arrow."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetPolicy:
    """Where the lake lies and when a file is closed: at `max_rows`, `max_bytes` (of Arrow data) or `max_age_s`, and at midnight UTC.

    `max_buffered_bytes` bounds what waits in memory over all partitions. A result id is compared with the last `id_window` ids of its
    partition; 0 keeps every row. An unclaimed file is abandoned by its writer after half of `stale_after_s`, and swept after the whole;
    clocks of all writers must agree within a quarter of it. `audited_entries` of a chain, the newest, are checked at each take-over,
    and ids are remembered from at most `remembered_entries` (a millisecond each).
    """

    directory: Path = Path("lake")
    max_rows: int = 100_000
    max_bytes: int = 64 << 20
    max_age_s: float = 30.0
    max_buffered_bytes: int = 256 << 20
    id_window: int = 2_000_000
    retry_after_s: float = 2.0
    stale_after_s: float = 86_400.0
    audited_entries: int = 10_000
    remembered_entries: int = 100_000
