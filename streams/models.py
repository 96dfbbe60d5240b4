"""Which model sees an image of a batch, and that it is there: the seam behind which a worker has one model, or many."""

from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from detectors.base import Detector
from detectors.hosting import Loaded
from schemas.errors import BusyError, Reason, RejectedError
from streams.routes import Route
from streams.work import Seat


class Models(Protocol):
    """Where the images of a worker may go."""

    def seat(self, refs: pa.RecordBatch) -> Loaded | list[Seat | RejectedError | BusyError]:
        """Where each row goes; one version alone where all go there and nothing was to be chosen.

        Called on a thread, and may take a moment where nothing of the batch can be done without it.
        """


class OneModel:
    """The model that the worker was started with: nothing to choose, and nothing to look up for an image."""

    def __init__(self, detector: Detector) -> None:
        model = detector.model
        self._reference = f"{model.name}@{model.version}"
        self._names = pa.array([model.name, self._reference])
        self._loaded = Loaded(self._reference, detector, model.origin or model.digest)

    def seat(self, refs: pa.RecordBatch) -> Loaded | list[Seat | RejectedError | BusyError]:
        """All go to the one model, but those that ask for another."""
        asked = refs.column("model")
        if asked.null_count == refs.num_rows:
            return self._loaded
        known = pc.or_(pc.is_null(asked), pc.is_in(asked, self._names))
        if known.false_count == 0:
            return self._loaded
        seat = Seat(self._loaded, Route(self._reference))
        refusal = RejectedError(Reason.MODEL_UNKNOWN, f"this worker runs {self._reference}")
        return [seat if one else refusal for one in known.to_pylist()]
