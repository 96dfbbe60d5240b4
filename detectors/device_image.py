"""A picture whose pixels were decoded on a device and stay there until somebody on the host asks for them."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detectors.base import Image


class DeviceImage(Image):
    """An `Image` held as a tensor, uint8 (height, width, 3), RGB, upright, on any device of torch; imports no torch itself.

    `pixels` copies it to the host on every call: detectors that know tensors take `tensor`, and others work as with any image.
    """

    __slots__ = ("tensor",)

    tensor: Any

    def __init__(self, tensor: Any, *, fetch_ms: float = 0.0, decode_ms: float = 0.0, sha256: str = "") -> None:
        # A frozen dataclass with slots sets its fields so, too.
        for name, value in (
            ("tensor", tensor),
            ("fetch_ms", fetch_ms),
            ("decode_ms", decode_ms),
            ("frame", None),
            ("sha256", sha256),
        ):
            object.__setattr__(self, name, value)

    def told(self, fetch_ms: float, decode_ms: float, sha256: str) -> Self:
        """The same picture with what is known of how it came."""
        return type(self)(self.tensor, fetch_ms=fetch_ms, decode_ms=decode_ms, sha256=sha256)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """A copy on the host: uint8, (height, width, 3), C-contiguous."""
        copied: NDArray[np.uint8] = np.ascontiguousarray(self.tensor.cpu().numpy())
        return copied

    @property
    def width(self) -> int:
        """Pixels across the oriented frame."""
        return int(self.tensor.shape[1])

    @property
    def height(self) -> int:
        """Pixels down the oriented frame."""
        return int(self.tensor.shape[0])
