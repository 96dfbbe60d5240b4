"""Several devices in one worker, as one detector: one queue of calls, and each goes to the first device that is free."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from queue import SimpleQueue

from detectors.base import Boxes, Detector, Image, ModelInfo
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters


def join_devices(detectors: Sequence[Detector]) -> "Fleet":
    """One detector of several that run the same model, each on a device of its own; the fleet owns them from now on.

    Raises ConfigurationError where they differ in more than the device, since results say how they were made.
    """
    first, *others = (detector.model for detector in detectors)
    for other in others:
        differing = [
            f"{name} {one!r} and {two!r}"
            for name in ("digest", "labels", "backend", "precision", "canvas")
            if (one := getattr(first, name)) != (two := getattr(other, name))
        ]
        if differing:
            raise ConfigurationError(
                f"the devices {first.device} and {other.device} do not run the model alike ({'; '.join(differing)}); say "
                "model.backend and model.precision, or run a worker for each"
            )
    return Fleet(detectors)


class Fleet:
    """Hands each call to a device with a lane free, and waits for one where all are busy. A call is never split over devices.

    A device that fails is not left out: its errors are those of the call, as with one device.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = tuple(detectors)
        devices = Counter(detector.model.device for detector in self._detectors)
        named = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in devices.items())
        self._model = replace(self._detectors[0].model, device=named)
        # A detector stands in the queue once for each call that it takes, and all have their first turn before any has its second.
        self._free: SimpleQueue[Detector] = SimpleQueue()
        for turn in zip_longest(*([detector] * detector.concurrency for detector in self._detectors)):
            for detector in turn:
                if detector is not None:
                    self._free.put(detector)

    @property
    def model(self) -> ModelInfo:
        """The model that runs; `device` names all devices."""
        return self._model

    @property
    def concurrency(self) -> int:
        """What all devices together take."""
        return sum(detector.concurrency for detector in self._detectors)

    @property
    def max_batch(self) -> int:
        """What the least of them takes, since any call may go to it."""
        return min(detector.max_batch for detector in self._detectors)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        detector = self._free.get()
        try:
            return detector.detect(images, parameters)
        finally:
            self._free.put(detector)

    def close(self) -> None:
        """Give back all devices."""
        for detector in self._detectors:
            detector.close()
