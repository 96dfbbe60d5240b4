"""ONNX models and IR with a YOLO head, on what OpenVINO runs on. One image a request: results never depend on a batch's company.

Batches of several images were measured: on cores with and without AMX they are no faster than as many requests at once on streams of
their own, since the activations of one image fit the cache and those of several do not.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Letterbox, Thresholds, join, read_yolo
from detectors.calm import is_calm
from detectors.openvino_canvases import MOST, Graphs, Lane
from detectors.openvino_graph import (
    choose_device,
    compile_network,
    float_precisions,
    is_quantised,
    precision_settings,
    read_network,
    read_signature,
    round_biases,
    thread_settings,
)
from detectors.openvino_library import ov
from detectors.siblings import find_quantised, trace, vouched_for
from detectors.spec import ModelFile, ModelSpec, read_model
from detectors.yolo_onnx import read_head
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters

log = logging.getLogger(__name__)

# Two calls at once, so that the end of one batch, when streams run dry, is the middle of another.
CONCURRENCY = 2
# Requests of a call that wait behind those that run, so that a stream never waits for the letterbox.
SPARE_REQUESTS = 2
# A larger model gains less from graphs of its own for some canvases, and they take more memory.
_SMALL_BYTES = 64 * 1024 * 1024


def load(spec: ModelSpec) -> "OpenVinoDetector":
    """Read, compile and warm a model; for `int8` its sibling, unless it is quantised itself.

    Raises ConfigurationError where the file or the device is not fit for it.
    """
    file = read_model(spec)
    if spec.precision != "int8" or is_quantised(read_network(ov.Core(), file)):
        detector = OpenVinoDetector(spec, file)
    else:
        sibling = find_quantised(spec)
        detector = OpenVinoDetector(sibling, read_model(sibling), origin=file.digest)
    detector.warm()
    return detector


def precisions(spec: ModelSpec) -> tuple[str, ...]:
    """What `auto` may choose from, f32 first: what the device computes in, and int8 where a sibling is there and vouched for.

    A model that is quantised already has one precision. Raises ConfigurationError as `load` does.
    """
    core, file = ov.Core(), read_model(spec)
    if is_quantised(read_network(core, file)):
        return ("int8",)
    offered = float_precisions(core, choose_device(core, spec.device)[0])
    if "bf16" in offered:
        # Never faster than bf16 on a CPU that has that, and several times slower on most.
        offered = tuple(name for name in offered if name != "f16")
    return (*offered, *(["int8"] if vouched_for(spec, file) else []))


def place(spec: ModelSpec) -> str:
    """The library, its version, the device's full name, the sibling: what a measurement holds for."""
    core = ov.Core()
    device = core.get_property(choose_device(core, spec.device)[0], "FULL_DEVICE_NAME")
    return f"openvino {ov.__version__} on {device}, {trace(spec)}"


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """One image in inference, `row` of its batch; keeps the pixels alive that the device reads."""

    row: int
    request: Any
    pixels: NDArray[np.uint8]
    letterbox: Letterbox
    thresholds: Thresholds

    def land(self, found: dict[int, Found]) -> None:
        """Wait for the inference and read its boxes, before the request is used again."""
        self.request.wait()
        prediction = self.request.get_output_tensor(0).data[0]
        found[self.row] = read_yolo(prediction, self.thresholds, self.letterbox)


class OpenVinoDetector:
    """Keeps every stream of the device busy with requests of one image; letterboxes the next ones meanwhile.

    An image that comes alone while nothing else runs has all cores to itself, in a second graph that is compiled for latency.
    """

    def __init__(self, spec: ModelSpec, file: ModelFile, origin: str = "") -> None:
        core = ov.Core()
        network = read_network(core, file)
        self._head = read_head(read_signature(network), file.path, spec)
        self._spec = spec.taking(self._head.advice)
        if self._head.batch not in {None, 1}:
            raise ConfigurationError(
                f"{file.path} takes batches of {self._head.batch}; export it with a batch of 1, or a free one"
            )
        device, why = choose_device(core, spec.device)
        if spec.device == "auto":
            log.info("device auto: %s, as %s", device, why)
        settings = {**precision_settings(spec.precision, float_precisions(core, device)), **thread_settings(device)}
        rounding = settings["INFERENCE_PRECISION_HINT"] == ov.Type.bf16 and not is_quantised(network)
        if rounding:
            round_biases(network)
        # In f32 a graph for one canvas is no faster, and a quantised one might find something else.
        most = MOST if rounding and self._head.stride and len(file.content) + len(file.weights) <= _SMALL_BYTES else 0

        def open_graphs(hint: str) -> Graphs:
            compile_for = partial(compile_network, core, network, device, {**settings, "PERFORMANCE_HINT": hint})
            return Graphs(compile_for, most=most)

        hints = ("THROUGHPUT", "LATENCY") if device.startswith("CPU") else ("THROUGHPUT",)
        # Each compilation keeps one core busy for a second.
        with ThreadPoolExecutor(1 if is_calm() else len(hints)) as pool:
            self._graphs = list(pool.map(open_graphs, hints))
        busy, *swift = self._graphs
        streams = int(busy.common.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._lanes: SimpleQueue[Lane] = SimpleQueue()
        for _ in range(CONCURRENCY):
            self._lanes.put(Lane(busy, streams + SPARE_REQUESTS))
        self._express: SimpleQueue[Lane] = SimpleQueue()
        if swift and streams > 1:
            self._express.put(Lane(swift[0], 1))
        precision = (
            "int8" if is_quantised(network) else busy.common.get_property("INFERENCE_PRECISION_HINT").to_string()
        )
        self._model = ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=self._head.labels,
            backend=f"openvino {ov.__version__.split('-')[0]}",
            precision=str(precision),
            device=str(core.get_property(device, "FULL_DEVICE_NAME")),
            canvas=self._head.canvas,
            origin=origin,
            advice=self._head.advice,
        )
        log.info("compiled %s for %s", file.path.name, device, extra={"streams": streams, "precision": precision})

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two: one call's tail hides behind the other."""
        return CONCURRENCY

    @property
    def max_batch(self) -> int:
        """Not the device's bound, as images run one by one, but what keeps a call short: results leave when their batch is done."""
        return 16

    def warm(self) -> None:
        """Run every request once, so that the first image of a run is not slower than the rest."""
        width, height = self._head.canvas
        grey = Image(np.full((height, width, 3), 114, np.uint8))
        for lanes in (self._lanes, self._express):
            for _ in range(lanes.qsize()):
                lane = lanes.get()
                at_once = 1 if is_calm() else lane.depth
                for _ in range(0, lane.depth, at_once):
                    self._run(lane, [grey] * at_once, [DetectParameters()] * at_once)
                lanes.put(lane)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        with self._lane(len(images)) as lane:
            return join(self._run(lane, images, parameters))

    def close(self) -> None:
        """Let go of the compiled graphs."""
        for graphs in self._graphs:
            graphs.close()
        self._graphs.clear()
        for _ in range(CONCURRENCY):
            self._lanes.get()
        with suppress(Empty):
            self._express.get_nowait()

    @contextmanager
    def _lane(self, images: int) -> Iterator[Lane]:
        """Requests for one call: the express lane for an image that is alone, for its graph would slow down others beside it."""
        lanes = self._lanes
        if images == 1 and lanes.qsize() == CONCURRENCY and not self._express.empty():
            lanes = self._express
        try:
            lane = lanes.get_nowait()
        except Empty:
            lanes = self._lanes
            lane = lanes.get()
        try:
            yield lane
        finally:
            lanes.put(lane)

    def _run(self, lane: Lane, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> list[Found]:
        fitted = [Letterbox.fit((image.width, image.height), self._head.canvas, self._head.stride) for image in images]
        asked = [Thresholds.of(wanted, self._spec) for wanted in parameters]
        # Canvas by canvas, so that streams of different graphs seldom share the cores.
        order = sorted(range(len(images)), key=lambda row: fitted[row].canvas)
        flights: deque[_Flight] = deque()
        found: dict[int, Found] = {}
        try:
            for row in order:
                pixels = fitted[row].apply(images[row].pixels)
                if len(flights) == lane.depth:
                    flights.popleft().land(found)
                request = lane.request(fitted[row].canvas)
                request.set_input_tensor(ov.Tensor(pixels[np.newaxis], shared_memory=True))
                request.start_async()
                flights.append(_Flight(row, request, pixels, fitted[row], asked[row]))
            while flights:
                flights.popleft().land(found)
        finally:
            for flight in flights:
                with suppress(RuntimeError):
                    flight.request.wait()
        return [found[row] for row in range(len(images))]
