"""A process that decodes images for another: `python -m detectors.decoder_process SOCKET MEMORY LIMITS`, started by `detectors.decoders`.

Image libraries are large, written in C and fed by strangers. Here a crash, a hang or a lack of memory ends this process and nothing else.
Bytes come and pixels go through a memory file that is read and written, never mapped: nothing done here can pull pages away from under the
worker. Over the socket go small messages, one each way: the number of bytes, then a JSON object.
"""

import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from schemas.errors import Reason, RejectedError

if TYPE_CHECKING:
    from detectors.decode import Decoded

Decode: TypeAlias = "Callable[[bytes, int, tuple[int, int] | None], Decoded]"

MAX_MESSAGE_BYTES = 4096
_MAX_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one image may cost. `canvas`: (width, height) of a model's largest input; None decodes everything whole.

    `seconds` are of processor time, so that a busy machine is not held against an image; `memory_bytes` come on top of what the process
    takes when it is idle.
    """

    max_pixels: int
    canvas: tuple[int, int] | None
    seconds: float
    memory_bytes: int

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "canvas": values["canvas"] and tuple(values["canvas"])})


def main() -> None:
    """Decode until the other side closes the socket."""
    os.putenv(
        "OPENBLAS_NUM_THREADS", "1"
    )  # which numpy reads as it is imported, and else starts a thread for each core
    from detectors.decode import decode_for  # noqa: PLC0415

    serve(decode_for)


def serve(decode: Decode) -> None:
    """Say that this process is ready, then answer one request after another, with `decode` for `detectors.decode.decode_for`."""
    descriptor, memory, text = sys.argv[1:]
    limits = Limits.from_json(text)
    _bound_memory(limits.memory_bytes)
    message = b"ready"
    with socket.socket(fileno=int(descriptor)) as requests:
        while _send(requests, message) and (size := requests.recv(MAX_MESSAGE_BYTES)):
            # What this signal does by default, ending the process, it does whatever code runs just then.
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            message = json.dumps(_answer(int(memory), int(size), limits, decode)).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)


def _send(requests: socket.socket, message: bytes) -> bool:
    """Whether anybody is there to receive it."""
    try:
        return bool(requests.send(message))
    except ConnectionError:
        return False


def _answer(memory: int, size: int, limits: Limits, decode: Decode) -> dict[str, Any]:
    """Decode the bytes in the memory file and put the pixels in their place."""
    try:
        decoded = decode(os.pread(memory, size, 0), limits.max_pixels, limits.canvas)
        os.pwrite(memory, decoded.pixels.data, 0)
    except RejectedError as error:
        return {"reason": error.reason, "message": str(error)[:_MAX_TEXT]}
    except (MemoryError, OSError):
        message = f"decoding takes more than {limits.memory_bytes} bytes of memory"
        return {"reason": Reason.DECODER_FAILED, "message": message}
    return {"shape": decoded.pixels.shape, "frame": decoded.frame}


def _bound_memory(more_bytes: int) -> None:
    """Let the address space of this process grow by so much and no further; what it asks for then, it is refused."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
