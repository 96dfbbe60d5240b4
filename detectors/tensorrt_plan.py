"""What a TensorRT engine is built for, and how built ones are kept: no TensorRT in here, and no GPU needed."""

import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from detectors.buckets import Buckets
from detectors.yolo_onnx import Head, Signature

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")
Shape = tuple[int, int, int, int]

_MAGIC = b"sightstream engine 1\n"
_BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Profile:
    """Inputs (n, 3, height, width) that an engine takes: from `least` to `most`, and the one that its kernels are chosen for."""

    least: Shape
    best: Shape
    most: Shape

    @classmethod
    def of(cls, head: Head) -> Self:
        """The profile of a model: what the file leaves free is free within the buckets and the canvas.

        Kernels are chosen for the largest: a full batch is what a busy worker runs, and smaller ones have time to spare.
        """
        width, height = head.canvas
        batches = (head.batch,) if head.batch else _BATCHES
        most = (batches[-1], 3, height, width)
        return cls((batches[0], 3, head.stride or height, head.stride or width), most, most)

    @property
    def buckets(self) -> Buckets:
        """The batch sizes to run."""
        first, last = self.least[0], self.most[0]
        return Buckets((last,) if first == last else tuple(size for size in _BATCHES if first <= size <= last))


@dataclass(frozen=True, slots=True)
class Target:
    """What an engine is good for and for nothing else: a GPU by its name, a version of TensorRT, a model, a precision, a profile."""

    gpu: str
    tensorrt: str
    model: str
    precision: str
    profile: Profile

    @property
    def file_name(self) -> str:
        """A name to know it by, and a hash of all of it."""
        said = json.dumps(asdict(self), sort_keys=True)
        gpu = re.sub(r"[^A-Za-z0-9]+", "-", self.gpu).strip("-")
        digest = hashlib.sha256(said.encode()).hexdigest()
        return f"{gpu}-trt{self.tensorrt}-{self.precision}-{digest[:24]}.engine"


@dataclass(frozen=True, slots=True, eq=False)
class EngineFile:
    """A built engine, what it is good for, and what the model said of itself. `plan`: TensorRT's own serialised form."""

    target: Target
    signature: Signature
    plan: bytes

    def pack(self) -> bytes:
        """The file: a line of JSON, with the plan's hash, before the plan."""
        header = {
            "target": asdict(self.target),
            "signature": asdict(self.signature),
            "sha256": hashlib.sha256(self.plan).hexdigest(),
        }
        return _MAGIC + json.dumps(header).encode() + b"\n" + self.plan

    @classmethod
    def unpack(cls, content: bytes) -> Self | None:
        """What `pack` wrote; None where the content is anything else or damaged, as TensorRT may crash on a damaged plan."""
        header, _, plan = content.removeprefix(_MAGIC).partition(b"\n")
        with suppress(ValueError, KeyError, TypeError):
            said: dict[str, Any] = json.loads(header)
            if content.startswith(_MAGIC) and said["sha256"] == hashlib.sha256(plan).hexdigest():
                return cls(_read_target(said["target"]), _read_signature(said["signature"]), plan)
        return None


def open_or_build(
    directory: Path | None,
    target: Target,
    open_plan: Callable[[bytes], Opened | None],
    build: Callable[[], EngineFile],
) -> Opened:
    """The engine for `target`: the one kept in `directory` if it opens, else one that `build` makes, which is kept.

    `open_plan(plan)` gives None for a plan that it cannot use. Processes that want the same engine wait for the first to build it.
    A directory that cannot be written costs the next start a build and is no error. Raises what `build` raises, and RuntimeError where
    even a fresh plan does not open.
    """
    with _locked(directory, target) as path:
        plan = _read(path, target)
        opened = open_plan(plan) if plan else None
        if opened is not None:
            log.info("engine of an earlier start: %s", path)
            return opened
        log.info("building an engine for %s, which takes minutes", target.gpu, extra={"precision": target.precision})
        built = build()
        opened = open_plan(built.plan)
        if opened is None:
            raise RuntimeError("TensorRT does not open the engine that it has just built")
        _write(path, built.pack())
        return opened


@contextmanager
def _locked(directory: Path | None, target: Target) -> Iterator[Path | None]:
    """The engine's path, for this process alone; None where nothing can be kept."""
    if directory is None:
        yield None
        return
    path = directory / target.file_name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        log.warning("engines cannot be kept in %s: %s", directory, error.strerror)
        yield None
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def _read(path: Path | None, target: Target) -> bytes | None:
    if path is None or not path.is_file():
        return None
    try:
        kept = EngineFile.unpack(path.read_bytes())
    except OSError as error:
        log.warning("the engine %s cannot be read: %s", path, error.strerror)
        return None
    if kept is None or kept.target != target:
        log.warning("the engine %s is damaged or stale, and is built anew", path)
        return None
    return kept.plan


def _read_target(said: dict[str, Any]) -> Target:
    profile = {name: tuple(shape) for name, shape in said["profile"].items()}
    return Target(**{**said, "profile": Profile(**profile)})


def _read_signature(said: dict[str, Any]) -> Signature:
    return Signature(tuple(said["images"]), tuple(said["output"]), said["metadata"])


def _write(path: Path | None, content: bytes) -> None:
    if path is None:
        return
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        log.warning("the engine cannot be kept: %s", error)
