"""Which part of a detection network is its decoding: what must stay in float when the rest is made smaller."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Node = TypeVar("Node")


@dataclass(frozen=True, slots=True, eq=False)
class Graph(Generic[Node]):
    """A network, whichever library read it. `outputs`: the nodes whose results leave it; `sources`: the nodes that feed a node.

    `kind`: the operator's name as ONNX and OpenVINO share it (`Conv` and `Convolution` are told apart by the caller);
    `filters`: of a convolution, how many channels it makes; None for every other node.
    """

    outputs: tuple[Node, ...]
    sources: Callable[[Node], Iterable[Node]]
    name: Callable[[Node], str]
    filters: Callable[[Node], int | None]
    reads_shape: Callable[[Node], bool]


def decoding_part(graph: Graph[Node]) -> dict[str, Node]:
    """The nodes behind the last convolutions, with these, by name: they turn features into pixels and scores.

    Coordinates of hundreds of pixels with fractions do not fit eight bits, nor sixteen, and the last convolutions' outputs are where a
    score's whole range is decided. A convolution of one filter is no end: it is the expectation in YOLO's box decoding
    (distribution focal loss), and the last convolution lies before it.
    """
    part: dict[str, Node] = {}
    left = list(graph.outputs)
    while left:
        node = left.pop()
        if graph.name(node) in part or graph.reads_shape(node):
            continue
        part[graph.name(node)] = node
        if graph.filters(node) in {None, 1}:
            left.extend(graph.sources(node))
    return part
