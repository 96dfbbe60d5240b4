"""Everything that is asked of TensorRT itself: build a plan, open one, run one. `trt` is its module, version 10 or 11."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from detectors.tensorrt_plan import Profile
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)


def build_plan(trt: Any, graph: bytes, profile: Profile, *, tf32: bool) -> bytes:
    """Compile an ONNX graph for the current CUDA device; takes minutes. Raises ConfigurationError where TensorRT cannot."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # The only kind there is in TensorRT 11, where the flag is accepted and ignored.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        said = "; ".join(parser.get_error(row).desc() for row in range(parser.num_errors))
        raise ConfigurationError(f"TensorRT cannot read the model: {said}")
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if profile.least != profile.most:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(network.get_input(0).name, profile.least, profile.best, profile.most)
        config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ConfigurationError("TensorRT cannot build an engine of the model; what it said stands on standard error")
    return bytes(plan)


class Executor:
    """A plan, ready to run on the current CUDA stream. Used by one thread at a time, as TensorRT's contexts are.

    `stream()` gives the handle of the stream to run on.
    """

    def __init__(self, trt: Any, engine: Any, stream: Callable[[], int]) -> None:
        self._engine = engine
        self._context = engine.create_execution_context()
        self._stream = stream
        names = [engine.get_tensor_name(row) for row in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._input = inputs[0]
        self._outputs = [name for name in names if name not in inputs]
        types = {trt.DataType.FLOAT: torch.float32, trt.DataType.HALF: torch.float16, trt.DataType.BF16: torch.bfloat16}
        self._types = {name: types[engine.get_tensor_dtype(name)] for name in names}

    @classmethod
    def open(cls, trt: Any, plan: bytes, stream: Callable[[], int]) -> "Executor | None":
        """The executor of a plan; None where TensorRT does not open it, as another version's, or another kind of GPU's."""
        engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
        return None if engine is None else cls(trt, engine, stream)

    def __call__(self, planes: Any) -> Any:
        """The first output for `planes`, (n, 3, height, width), on their device; launched, not waited for.

        Raises ValueError for a shape beyond the profile, torch.OutOfMemoryError, and RuntimeError where TensorRT fails.
        """
        planes = planes.to(self._types[self._input]).contiguous()
        if not self._context.set_input_shape(self._input, tuple(planes.shape)):
            raise ValueError(f"the engine takes no images of shape {tuple(planes.shape)}")
        outputs = [self._allocate(name, planes.device) for name in self._outputs]
        for name, tensor in zip((self._input, *self._outputs), (planes, *outputs), strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(self._stream()):
            raise RuntimeError("TensorRT failed to run the engine; what it said stands on standard error")
        return outputs[0]

    def _allocate(self, name: str, device: Any) -> Any:
        shape = tuple(self._context.get_tensor_shape(name))
        return torch.empty(shape, dtype=self._types[name], device=device)
