"""What a client asks a gateway for, as queries."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from producers.client_images import ImageStatus

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuery:
    """Which images to list; None and empty mean any. `since` and `until` are of the submission, `camera` is the images' key."""

    labels: tuple[str, ...] = ()
    min_score: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    camera: str | None = None
    status: ImageStatus | None = None
    batch: str | None = None
    model: str | None = None

    def pairs(self) -> Pairs:
        """As a query of `GET /v1/images`."""
        one = {name: getattr(self, name) for name in self.__slots__ if name != "labels"}
        given = [(name, _text(value)) for name, value in one.items() if value is not None]
        return [*(("label", label) for label in self.labels), *given]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedLook:
    """How a picture with boxes is to look. `labels`: only these, empty means all. `max_side`: longest side in pixels.

    `model`: `name@version` whose boxes to draw, instead of the newest result's.
    """

    format: Literal["jpeg", "webp"] = "jpeg"
    min_score: float | None = None
    labels: tuple[str, ...] = ()
    max_side: int | None = None
    model: str | None = None

    def pairs(self) -> Pairs:
        """As a query of `GET /v1/images/{id}/annotated`."""
        optional = {
            "min_score": self.min_score,
            "labels": ",".join(self.labels) or None,
            "max_side": self.max_side,
            "model": self.model,
        }
        return [("format", self.format), *((name, str(value)) for name, value in optional.items() if value is not None)]


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
