"""The knobs of submission, apart from it so that reading settings loads nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPolicy:
    """What one request may bring, and how much is in hand at once.

    `max_images`: of one request. `max_json_bytes`: of a body that names images. `uri_prefixes`: URIs that callers may name beside http,
    https and their own uploads: whatever workers can read under them, every caller can have looked at. `confirm_s`: how long Kafka may take
    to confirm. `in_hand`: images that are received or stored at once, each with up to `uploads.spool_bytes` in memory; `at_once`: those of
    them that are of one request. `max_unconfirmed`: records that wait for Kafka before no more are taken; less than
    `publisher.max_buffered_records`. `max_wait_s`: the longest `?wait=`.
    """

    max_images: int = 1000
    max_json_bytes: int = 4 << 20
    uri_prefixes: tuple[str, ...] = ()
    confirm_s: float = 20.0
    in_hand: int = 256
    at_once: int = 8
    max_unconfirmed: int = 10_000
    max_wait_s: float = 60.0
