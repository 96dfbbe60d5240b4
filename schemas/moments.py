"""Moments as records have them (UTC) and as columns and windows do (microseconds since the epoch): exact both ways."""

from datetime import UTC, datetime, timedelta

from schemas.records import EPOCH

_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - EPOCH) // _MICROSECOND


def from_us(moment_us: int) -> datetime:
    """The moment so many microseconds after the epoch, in UTC."""
    return (EPOCH + timedelta(microseconds=moment_us)).astimezone(UTC)
