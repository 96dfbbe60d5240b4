"""What the Parquet sink counts; names as in docs/operations.md."""

from prometheus_client import Counter, Gauge

FILES = Counter("sightstream_parquet_files_committed_total", "Files made visible.", ["topic"])
ROWS = Counter("sightstream_parquet_rows_committed_total", "Rows made visible.", ["topic"])
DUPLICATES = Counter(
    "sightstream_parquet_duplicates_total", "Results dropped because their id was already there.", ["topic"]
)
CONFLICTS = Counter("sightstream_parquet_commit_conflicts_total", "Claims that another writer made first.", ["topic"])
REDONE = Counter(
    "sightstream_parquet_redone_total", "Files that a predecessor had claimed and not made visible.", ["topic"]
)
LOST = Counter(
    "sightstream_parquet_lost_offsets_total", "Offsets deleted from the topic before they were read: page.", ["topic"]
)
REFUSED = Counter(
    "sightstream_parquet_refused_total", "Partitions refused because the lake contradicts the log: page.", ["topic"]
)
BLOCKED = Gauge("sightstream_parquet_blocked", "1 while the storage refuses writes.")
BUFFERED = Gauge("sightstream_parquet_buffered_bytes", "Arrow bytes taken and not yet in a file.")
