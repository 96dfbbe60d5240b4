"""A network compiled for every canvas, and again for each of the few canvases that come most.

A graph that knows its canvas when it is compiled joins tensors in place and plans its memory: in bf16 it takes about a tenth less time.
Compiling takes a second of a core, so that only what comes often is worth it, and happens beside the work.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

log = logging.getLogger(__name__)

Canvas: TypeAlias = tuple[int, int]
"""(width, height) in pixels."""

# More than the images that are drawn to measure a model when it is loaded; they say nothing of those that will come.
OFTEN = 128
# Each takes the memory of the first graph once more. Most streams of images are of one camera, or of photographs in few formats.
MOST = 3


class Graphs:
    """The compiled graphs of one network in one setting. Thread-safe.

    `compile_for` makes the graph of a canvas, or for None the common one, which is made at once. A canvas that came `often` times gets one
    of its own, the first `most` that do; where that fails, the common graph stays its graph.
    """

    def __init__(self, compile_for: Callable[[Canvas | None], Any], often: int = OFTEN, most: int = MOST) -> None:
        self._compile_for = compile_for
        self._often = often
        self._most = most
        self._came: Counter[Canvas] = Counter()
        self._lock = threading.Lock()
        self._builder = ThreadPoolExecutor(1, "compile")
        self.common = compile_for(None)
        self.own: dict[Canvas, Any] = {}

    def note(self, canvas: Canvas) -> None:
        """An image on this canvas is about to run on the common graph: compile one for it if it comes often."""
        with self._lock:
            self._came[canvas] += 1
            due = self._most > 0 and self._came[canvas] == self._often
            self._most -= due
        if due:
            self._builder.submit(self._compile, canvas)

    def close(self) -> None:
        """Wait for what is being compiled, and compile no more. Not called while images run."""
        self._builder.shutdown(cancel_futures=True)

    def _compile(self, canvas: Canvas) -> None:
        try:
            self.own[canvas] = self._compile_for(canvas)
        except Exception as error:  # noqa: BLE001 - whatever the library raises: the common graph does it, too
            log.warning("no graph of its own for the canvas %dx%d: %s", *canvas, error)
        else:
            log.info("compiled a graph of its own for the canvas %dx%d", *canvas)


class Lane:
    """Requests for one call: at most `depth` at a time, each of the graph that fits its canvas. For one thread at a time."""

    def __init__(self, graphs: Graphs, depth: int) -> None:
        self.depth = depth
        self._graphs = graphs
        self._rings: dict[Canvas | None, deque[Any]] = {None: self._ring(graphs.common)}

    def request(self, canvas: Canvas) -> Any:
        """The next request for an image on this canvas: it is free, as no more than `depth` are in use and they end in order."""
        own = self._graphs.own.get(canvas)
        if own is None:
            self._graphs.note(canvas)
            ring = self._rings[None]
        elif (known := self._rings.get(canvas)) is not None:
            ring = known
        else:
            ring = self._rings[canvas] = self._ring(own)
        ring.rotate(-1)
        return ring[0]

    def _ring(self, graph: Any) -> deque[Any]:
        return deque(graph.create_infer_request() for _ in range(self.depth))
