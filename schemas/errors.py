"""Failures by remedy: what a caller should do decides the class, and a stable `Reason` travels in dead letters."""

from enum import StrEnum


class Reason(StrEnum):
    """Stable code of a failure, as it stands in dead letters, metrics and logs. Codes are added, never renamed or reused."""

    AVRO_UNREADABLE = "avro_unreadable"
    SCHEMA_UNKNOWN = "schema_unknown"
    RECORD_INVALID = "record_invalid"
    RECORD_TOO_LARGE = "record_too_large"
    DEADLINE_EXPIRED = "deadline_expired"
    URI_UNSUPPORTED = "uri_unsupported"
    URI_FORBIDDEN = "uri_forbidden"
    IMAGE_NOT_FOUND = "image_not_found"
    IMAGE_FORBIDDEN = "image_forbidden"
    IMAGE_EMPTY = "image_empty"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_TOO_MANY_PIXELS = "image_too_many_pixels"
    IMAGE_TYPE_UNSUPPORTED = "image_type_unsupported"
    IMAGE_CORRUPT = "image_corrupt"
    IMAGE_HASH_MISMATCH = "image_hash_mismatch"
    FETCH_TIMEOUT = "fetch_timeout"
    FETCH_FAILED = "fetch_failed"
    MODEL_UNKNOWN = "model_unknown"
    MODEL_UNAVAILABLE = "model_unavailable"
    DETECTOR_FAILED = "detector_failed"
    DECODER_FAILED = "decoder_failed"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    RECORD_LOST = "record_lost"


class SightstreamError(Exception):
    """Root of the errors that this project raises on purpose."""


class RejectedError(SightstreamError):
    """This input can never succeed: dead-letter it, do not retry."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BusyError(SightstreamError):
    """Something outside is not ready: hold the input and try it again after `retry_after_s` seconds, within a budget."""

    def __init__(self, reason: Reason, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class ConfigurationError(SightstreamError):
    """The operator must change a setting or install something; the message says what. Raised before any work is taken."""


class FatalError(SightstreamError):
    """The process cannot keep its promises any more: stop without committing; a supervisor starts it again."""


class DeliveryError(SightstreamError):
    """Kafka did not confirm a record; whether it was written is unknown. Sending it again with the same id is safe."""
