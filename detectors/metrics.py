"""What detectors report to Prometheus."""

import time
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from detectors.around import Around
from detectors.base import Boxes, Detector, Image
from schemas.records import DetectParameters

FETCH_DURATION = Histogram(
    "sightstream_image_fetch_duration_seconds",
    "From the request for an image until its bytes were there or it failed; outcome is ok or a reason code",
    ["outcome"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
IMAGE_BYTES = Histogram(
    "sightstream_image_bytes",
    "Size of fetched images as encoded",
    buckets=tuple(4**power for power in range(4, 14)),
)
DECODERS_LOST = Counter(
    "sightstream_decoders_lost_total",
    "Decoder processes that ended and were replaced; how: at work, idle or stood still",
    ["how"],
)
INFERENCE_DURATION = Histogram(
    "sightstream_inference_duration_seconds",
    "One call of a detector, of whatever batch size",
    ["model"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
INFERENCE_BATCH_SIZE = Histogram(
    "sightstream_inference_batch_size", "Images in one call of a detector", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
CACHE_LOOKUPS = Counter(
    "sightstream_result_cache_lookups_total",
    "Images looked up among known results; store is memory, redis or flight (another batch was at it), outcome is hit or miss",
    ["store", "outcome"],
)
CACHE_BYTES = Gauge("sightstream_result_cache_bytes", "Memory that kept results take in this process")
CACHE_ERRORS = Counter("sightstream_result_cache_errors_total", "Calls that the result cache's Redis did not answer")
MODELS_LOADED = Gauge("sightstream_models_loaded", "Versions of the registry that this process has loaded")
MODELS_MEMORY = Gauge(
    "sightstream_models_memory_bytes", "Memory of those, as measured or estimated when they were loaded"
)
MODEL_CHANGES = Counter(
    "sightstream_model_changes_total",
    "What became of versions of the registry: loaded, refused or unloaded",
    ["model", "state"],
)
GPU_OOM = Counter("sightstream_gpu_oom", "Batches halved because the device had no memory for them", ["device"])


class MeteredDetector(Around[Detector]):
    """A detector that reports how long its calls take and how large their batches are."""

    def __init__(self, detector: Detector) -> None:
        super().__init__(detector)
        self._duration = INFERENCE_DURATION.labels(model=detector.model.name)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        started = time.perf_counter()
        try:
            return self._detector.detect(images, parameters)
        finally:
            self._duration.observe(time.perf_counter() - started)
            INFERENCE_BATCH_SIZE.observe(len(images))
