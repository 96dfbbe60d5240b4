"""A stand-in for TensorRT's Python module, where there is no GPU: the names that we call, as version 11 has them, run by ONNX Runtime.

A plan is the graph and what it was built with; a context reads its input from the address that it was given and writes its output to the
other. It refuses what TensorRT refuses: shapes outside the profile, graphs that do not parse, plans of another version.
"""

import ctypes
import enum
import importlib
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from detectors import tensorrt

GPU_NAME = "NVIDIA Test 100"
VERSION = "11.4.0.106"
_SEPARATOR = b"\n---\n"


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    BF16 = 2


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class BuilderFlag(enum.Enum):
    TF32 = 0


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 0


class Logger:
    WARNING = 2

    def __init__(self, severity: int) -> None:
        self.severity = severity


class Network:
    graph: bytes = b""

    def get_input(self, index: int) -> Any:
        return onnx.load_model_from_string(self.graph).graph.input[index]


class OnnxParser:
    def __init__(self, network: Network, logger: Logger) -> None:
        self._network = network
        self.num_errors = 0

    def parse(self, content: bytes) -> bool:
        try:
            onnx.checker.check_model(onnx.load_model_from_string(content))
        except Exception:
            self.num_errors = 1
            return False
        self._network.graph = content
        return True

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "the graph does not parse")


class Profile:
    shapes: dict[str, list[Sequence[int]]]

    def set_shape(self, name: str, least: Sequence[int], best: Sequence[int], most: Sequence[int]) -> None:
        assert all(low <= mid <= high for low, mid, high in zip(least, best, most, strict=True))
        self.shapes = {name: [least, best, most]}


class Config:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}  # as the real one begins
        self.profile = Profile()
        self.profile.shapes = {}

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.remove(flag)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profile = profile
        return 0


class Builder:
    built = 0

    def __init__(self, logger: Logger) -> None:
        pass

    def create_network(self, flags: int) -> Network:
        assert flags == 1, "strongly typed"
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytearray:
        Builder.built += 1
        tf32 = BuilderFlag.TF32 in config.flags
        said = {"version": VERSION, "shapes": config.profile.shapes, "tf32": tf32}
        return bytearray(json.dumps(said).encode() + _SEPARATOR + network.graph)


class Runtime:
    def __init__(self, logger: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        header, _, graph = plan.partition(_SEPARATOR)
        said = json.loads(header)
        return Engine(graph, said["shapes"]) if said["version"] == VERSION else None


class Engine:
    def __init__(self, graph: bytes, shapes: dict[str, list[list[int]]]) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.shapes = shapes
        self._inputs, self._outputs = self.session.get_inputs(), self.session.get_outputs()
        self.num_io_tensors = len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return str([*self._inputs, *self._outputs][index].name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == self._inputs[0].name else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def create_execution_context(self) -> "Context":
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._input: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self._engine.shapes.get(name, [shape] * 3)
        self._input = tuple(shape)
        return all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._run(np.zeros(self._input, np.float32)).shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        names = [self._engine.get_tensor_name(index) for index in range(2)]
        images = _at(self._addresses[names[0]], self._input)
        output = self._run(images)
        _at(self._addresses[names[1]], output.shape)[:] = output
        return True

    def _run(self, images: Any) -> Any:
        session = self._engine.session
        return session.run(None, {session.get_inputs()[0].name: images})[0]


def _at(address: int, shape: Sequence[int]) -> Any:
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, tuple(shape))


def pretend(patch: pytest.MonkeyPatch) -> Any:
    """Let the backend find the stand-in, which is returned, and the CPU in place of a GPU."""
    from detectors.torch_device import Placement  # here: it brings torch

    torch = importlib.import_module("torch")
    trt, placement = stand_in(), Placement(torch.device("cpu"), torch.float32, GPU_NAME)
    patch.setattr(tensorrt, "_prepare", lambda spec: (trt, placement))
    return trt


def stand_in() -> Any:
    """The module, with no engine built yet."""
    Builder.built = 0
    names = (DataType, TensorIOMode, BuilderFlag, NetworkDefinitionCreationFlag, Logger, OnnxParser, Builder, Runtime)
    return SimpleNamespace(__version__=VERSION, **{name.__name__: name for name in names})
