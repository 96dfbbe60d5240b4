"""The weights of an ONNX graph made fewer and smaller: normalisations folded into convolutions, tensors kept in float16."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Tensors of so many dimensions are convolutions' weights: biases are few, and scales of a Resize must stay what they are.
_WEIGHTS = 2


def fold_norms(onnx: Any, graph: Any) -> None:
    """Fold each BatchNormalization into the convolution before it, in float64, unless another node reads the same weights.

    What stays costs nothing either: backends fold it when they load the file.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        convolution = makers.get(norm.input[0])
        if convolution is None or convolution.op_type != "Conv":
            continue
        if readers[norm.input[0]] == readers[convolution.input[1]] == 1:
            graph.initializer.extend(_fold(onnx, weights, convolution, norm))
            graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def store_halves(onnx: Any, graph: Any) -> None:
    """Keep convolutions' weights in float16, each with a Cast to float32 before those that read it."""
    casts = []
    for tensor in [tensor for tensor in graph.initializer if len(tensor.dims) >= _WEIGHTS]:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32:
            continue
        if (np.abs(values) > np.finfo(np.float16).max).any():
            raise ValueError(f"weights of {tensor.name} do not fit float16")
        stored = f"{tensor.name}.half"
        casts.append(
            onnx.helper.make_node("Cast", [stored], [tensor.name], f"{stored}.cast", to=onnx.TensorProto.FLOAT)
        )
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _fold(onnx: Any, weights: Mapping[str, Any], convolution: Any, norm: Any) -> list[Any]:
    """Make the convolution give what the normalisation after it gave; its new weights and biases."""

    def read(name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = onnx.numpy_helper.to_array(weights[name]).astype(np.float64)
        return values

    scale, shift, mean, variance = map(read, norm.input[1:])
    epsilon = next((entry.f for entry in norm.attribute if entry.name == "epsilon"), 1e-5)
    gain = scale / np.sqrt(variance + epsilon)
    kernel = read(convolution.input[1])
    bias = read(convolution.input[2]) if len(convolution.input) > 2 else np.zeros_like(mean)
    made = {
        f"{convolution.input[1]}.folded": kernel * gain.reshape(-1, *[1] * (kernel.ndim - 1)),
        f"{convolution.input[1]}.shift": (bias - mean) * gain + shift,
    }
    del convolution.input[1:]
    convolution.input.extend(made)
    convolution.output[0] = norm.output[0]
    return [onnx.numpy_helper.from_array(values.astype(np.float32), name) for name, values in made.items()]
