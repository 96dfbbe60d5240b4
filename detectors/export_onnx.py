"""ONNX files in half precision."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from detectors.export_graph import Graph, decoding_part
from detectors.spec import read_labels_file
from detectors.yolo_onnx import PRECISION_KEY
from schemas.errors import ConfigurationError

# Operators that read shapes, or that say themselves what type they make: the type of their input is no matter, or must stay.
_LEFT_ALONE = {"Shape", "Cast", "Constant", "ConstantOfShape", "Range", "NonMaxSuppression", "TopK", "QuantizeLinear"}


def write_half(source: Path, out: Path) -> None:
    """Write an ONNX model's float16 twin: input, output and decoding stay float32, so that coordinates keep their fractions.

    Raises ConfigurationError without the extra, or where the file is not an ONNX model.
    """
    onnx = _import_onnx()
    try:
        model = onnx.load(source)
        _widen(onnx, model.graph)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise ConfigurationError(f"{source} is not an ONNX model: {error}") from error
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ConfigurationError(f"{source} is quantised already: export the model that it was made of")
    labels = read_labels_file(source)
    if labels and all(entry.key != "names" for entry in model.metadata_props):
        model.metadata_props.add(key="names", value=str(dict(enumerate(labels))))
    if all(entry.key != PRECISION_KEY for entry in model.metadata_props):
        model.metadata_props.add(key=PRECISION_KEY, value="f16")
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    _Halving(onnx, model.graph).run()
    onnx.save(model, out)


def widen_weights(content: bytes) -> bytes:
    """An ONNX file whose weights are kept in float16, each behind a Cast, with all of them in float32; any other file as it is.

    For TensorRT, which takes weights of convolutions as constants only. Raises ConfigurationError without the extra.
    """
    onnx = _import_onnx()
    model = onnx.load_from_string(content)
    return bytes(model.SerializeToString()) if _widen(onnx, model.graph) else content


def _widen(onnx: Any, graph: Any) -> int:
    """How many weights were widened."""
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]
    casts = [node for node in casts if node.attribute[0].i == onnx.TensorProto.FLOAT]
    for cast in casts:
        values = onnx.numpy_helper.to_array(weights[cast.input[0]]).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(values, cast.output[0]))
        graph.node.remove(cast)
    used = {name for node in graph.node for name in node.input}
    for name, tensor in weights.items():
        if name not in used:
            graph.initializer.remove(tensor)
    return len(casts)


class _Halving:
    """Turns the float tensors of most nodes into float16 and casts where the others begin and end.

    Not onnxconverter-common, which fails on a network whose last nodes are to stay as they are.
    """

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._onnx = onnx
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.value_info, *graph.input, *graph.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._halved: set[str] = set()
        self._made: dict[str, Any] = {}

    def run(self) -> None:
        """Rewrite the graph. Its nodes stand in an order in which each follows those that feed it."""
        kept = decoding_part(_graph_of(self._graph))
        nodes = []
        for node in list(self._graph.node):
            half = node.name not in kept and node.op_type not in _LEFT_ALONE
            # Of a Resize only the picture: its scales are float32 whatever that is.
            inputs = range(1 if node.op_type == "Resize" else len(node.input))
            for place in inputs if node.op_type != "Shape" else ():
                nodes += self._feed(node, place, half=half)
            nodes.append(node)
            if half:
                self._halved |= {name for name in node.output if self._is_float(name)}
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        # What was inferred of types no longer holds.
        del self._graph.value_info[:]
        used = {name for node in nodes for name in node.input}
        left = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(left)

    def _feed(self, node: Any, place: int, *, half: bool) -> list[Any]:
        """Give the node this input in the type that it wants; the nodes that this takes."""
        name = node.input[place]
        if not self._is_float(name) or half == (name in self._halved):
            return []
        wanted = f"{name}.{'half' if half else 'float'}"
        node.input[place] = wanted
        if wanted in self._made:
            return []
        self._made[wanted] = None
        if half and name in self._weights:
            values = self._onnx.numpy_helper.to_array(self._weights[name])
            bound = np.finfo(np.float16).max
            halved = np.clip(values, -bound, bound).astype(np.float16)
            self._graph.initializer.append(self._onnx.numpy_helper.from_array(halved, wanted))
            return []
        kind = self._onnx.TensorProto.FLOAT16 if half else self._onnx.TensorProto.FLOAT
        return [self._onnx.helper.make_node("Cast", [name], [wanted], f"{wanted}.cast", to=kind)]

    def _is_float(self, name: str) -> bool:
        return bool(self._types.get(name) == self._onnx.TensorProto.FLOAT)


def _graph_of(graph: Any) -> Graph[Any]:
    makers = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def sources(node: Any) -> Iterable[Any]:
        return [makers[name] for name in node.input if name in makers]

    def filters(node: Any) -> int | None:
        if node.op_type != "Conv":
            return None
        weight = weights.get(node.input[1])
        return None if weight is None else int(weight.dims[0])

    return Graph(
        outputs=tuple(makers[output.name] for output in graph.output),
        sources=sources,
        name=lambda node: str(node.name),
        filters=filters,
        reads_shape=lambda node: bool(node.op_type == "Shape"),
    )


def _import_onnx() -> Any:
    try:
        onnx = importlib.import_module("onnx")
        for part in ("shape_inference", "numpy_helper"):
            importlib.import_module(f"onnx.{part}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"half precision needs {error.name}, which is not installed: pip install 'sightstream[export]'"
        ) from error
    return onnx
