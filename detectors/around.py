"""A detector around another: for what adds to the calls of any detector and changes nothing else about it."""

from typing import Generic, TypeVar

from detectors.base import Detector, ModelInfo

Inner = TypeVar("Inner", bound=Detector)


class Around(Generic[Inner]):
    """Says of itself what the detector within says, and owns it; a subclass has `detect`, and calls `_detector` in it."""

    def __init__(self, detector: Inner) -> None:
        self._detector = detector

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._detector.model

    @property
    def concurrency(self) -> int:
        """How many `detect` calls at once make the device busiest."""
        return self._detector.concurrency

    @property
    def max_batch(self) -> int:
        """The most images that one call may be given."""
        return self._detector.max_batch

    def close(self) -> None:
        """Give back the device."""
        self._detector.close()
