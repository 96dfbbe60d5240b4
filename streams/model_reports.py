"""What a worker made of the versions of models, on the topic `model-status`."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime

from producers.publisher import Publisher, Receipt
from schemas.errors import FatalError
from schemas.models import ModelState, ModelStatus, ModelVersion

log = logging.getLogger(__name__)


class ModelReports:
    """Writes a record for every change; what is lost is only logged. `worker` is a name that no other worker has."""

    def __init__(self, publisher: Publisher, worker: str, now: Callable[[], datetime]) -> None:
        self._publisher, self._worker, self._now = publisher, worker, now
        self._keys: set[str] = set()

    def tell(self, version: ModelVersion, state: ModelState, reason: str) -> None:
        """`detectors.hosting.Tell`."""
        key = f"{self._worker}/{version.reference}"
        self._keys.add(key)
        status = ModelStatus(
            worker=self._worker,
            name=version.name,
            version=version.version,
            digest=version.digest,
            state=state,
            reason=reason[:1000],
            at=self._now(),
        )
        self._put(key, status)

    def close(self) -> None:
        """This worker has nothing loaded any more: take back what it said."""
        for key in sorted(self._keys):
            self._put(key, None)

    def _put(self, key: str, status: ModelStatus | None) -> None:
        try:
            sent = self._publisher.put(self._publisher.topics.model_status, key, status)
        except FatalError as error:
            log.warning("the state of a model is not reported: %s", error)
        else:
            sent.add_done_callback(_log_failure)


def _log_failure(sent: "Future[Receipt]") -> None:
    if error := sent.exception():
        log.warning("the state of a model is not reported: %s", error)
