"""The tables of the result store. Moments are microseconds since the epoch (`_us`): the same integer on every database.

Columns that are searched are short (`sinks.store_records` refuses longer values): PostgreSQL's indices take no more. The migrations make
these tables; a test holds the two together.
"""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, String, Table, Text, false

METADATA = MetaData()


def _text(name: str, default: str | None = "") -> Column[str]:
    """A text that is never null."""
    return Column(name, Text, nullable=False, server_default=default)


def _us(name: str, *, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=optional)


# One row an image: what was asked, and its newest outcome. `state`: 0 open, 1 completed, 2 failed. `detail`: a
# `sinks.store_records.Detail`; readers see none that is SILENT. `source_*`: where it waits, or waited, for a worker. `seen_us`: time
# in the log of the newest record about it, from which its expiry counts. `failure_offset`, `redriven_offset`: places in the dead
# letters, -1 for none.
IMAGES = Table(
    "images",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("detail", Integer, nullable=False),
    Column("batch_id", Text),
    _text("key"),
    _text("lane"),
    _text("uri"),
    Column("sha256", Text),
    Column("model", Text),
    _text("parameters"),
    _text("attributes"),
    _us("submitted_us"),
    _us("seen_us"),
    _text("source_topic"),
    Column("source_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("redriven_offset", BigInteger, nullable=False),
    Column("state", Integer, nullable=False),
    Column("result_id", Text),
    _us("completed_us", optional=True),
    Column("model_name", Text),
    Column("model_version", Text),
    Column("top_score", Double),
    Column("failure_offset", BigInteger, nullable=False),
    Column("failure_code", Text),
    Column("failure_message", Text),
    Column("failure_stage", Text),
    Column("failure_attempts", Integer),
    _us("failed_us", optional=True),
    Index("images_by_time", "tenant", "submitted_us", "id"),
    Index("images_by_key", "tenant", "key", "submitted_us", "id"),
    Index("images_by_state", "tenant", "state", "submitted_us", "id"),
    Index("images_by_batch", "tenant", "batch_id", "submitted_us", "id", "state"),
    Index("images_by_source", "source_topic", "source_partition", "state"),
    Index("images_by_age", "seen_us"),
)

# Every result of an image, also of other models and parameters; `images.result_id` names the newest that is not silent.
RESULTS = Table(
    "results",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("image_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    _us("completed_us"),
    _text("model_name"),
    _text("model_version"),
    _text("model_digest"),
    _text("backend"),
    _text("precision"),
    _text("device"),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("wait_ms", Double, nullable=False),
    Column("fetch_ms", Double, nullable=False),
    Column("decode_ms", Double, nullable=False),
    Column("inference_ms", Double, nullable=False),
    Column("detections", Text, nullable=False),
    Column("silent", Boolean, nullable=False, server_default=false()),
)

# The best score of each label in an image's newest result. The time is part of the key, so that one walk answers a search by label.
LABELS = Table(
    "labels",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("submitted_us", BigInteger, primary_key=True),
    Column("image_id", Text, primary_key=True),
    Column("score", Double, nullable=False),
    Index("labels_by_image", "tenant", "image_id"),
    sqlite_with_rowid=False,
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("images", Integer),
    Column("callback", Text),
    _us("created_us"),
    _us("closed_us", optional=True),
    _text("attributes"),
    Index("batches_by_age", "created_us"),
)

# What was forgotten. `deleted` outlives every rebuild and is never undone; `expired` goes after a while.
TOMBSTONES = Table(
    "tombstones",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("image_id", Text, primary_key=True),
    Column("reason", String(16), nullable=False),
    Column("batch_id", Text),
    _us("at_us"),
    Index("tombstones_by_batch", "tenant", "batch_id"),
    Index("tombstones_by_age", "reason", "at_us"),
)

MODELS = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    _us("first_seen_us"),
    _us("last_seen_us"),
)

# First results per stretch of time and class of latency: throughput and percentiles without a walk through the images.
PULSE = Table(
    "pulse",
    METADATA,
    Column("slot", BigInteger, primary_key=True),
    Column("latency_class", Integer, primary_key=True),
    Column("images", Integer, nullable=False),
)

# Up to where each partition is in these tables, written with them. `read_us`: what the log got before that moment is in.
POSITIONS = Table(
    "positions",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    _text("topic_id"),
    Column("next_offset", BigInteger, nullable=False),
    _us("read_us"),
)

# Up to where workers have taken each partition of the images topics.
TAKEN = Table(
    "taken",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    _us("at_us"),
)

# One webhook delivery a batch. It is nobody's once `claimed_until_us` is over; `claim` is whoever has it.
DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("batch_id", Text, primary_key=True),
    _text("url"),
    _text("receiver"),
    Column("state", String(16), nullable=False),
    _us("created_us"),
    _us("finished_us"),
    Column("attempts", Integer, nullable=False),
    _us("next_attempt_us", optional=True),
    _us("claimed_until_us"),
    _text("claim"),
    Index("deliveries_by_time", "tenant", "created_us", "batch_id"),
    Index("deliveries_due", "state", "next_attempt_us"),
)

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    _us("at_us"),
    Column("status", Integer),
    Column("error", Text),
    Column("duration_ms", Double, nullable=False),
)

# One-time tickets that nobody has used yet, by the digest of their text. `principal_expires_us`: when the credential behind it ends.
TICKETS = Table(
    "tickets",
    METADATA,
    Column("digest", String(64), primary_key=True),
    _text("tenant"),
    _text("subject"),
    _us("expires_us"),
    _us("principal_expires_us", optional=True),
    Index("tickets_by_age", "expires_us"),
)
