"""Clients that submit pictures over and over: 64 connections by default, spoken to in bytes, so that the clients cost next to nothing.

`python -m tests.benchmarks.sides.submitters PORT KEY SECONDS CONNECTIONS BYTES` prints figures as a line of JSON.
"""

import asyncio
import itertools
import json
import sys
import time

from tests.support.images import encode, photograph

_BOUNDARY = b"b0undary"
_HEAD = (
    b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
)
_TAIL = b"\r\n--" + _BOUNDARY + b"--\r\n"


def picture_of(size: int) -> tuple[bytes, bytes]:
    """A JPEG of about that size in two halves, between which 32 digits of a comment tell pictures apart."""
    side, content = 160, b""
    while len(content) < size:
        side = int(side * 1.1)
        content = encode(photograph(1, side, side), "JPEG", quality=95)
    return content[:2] + b"\xff\xfe" + (34).to_bytes(2, "big"), content[2:]


async def _submit(
    port: int, request: bytes, rest: bytes, numbers: "itertools.count[int]", until: float
) -> list[tuple[float, float]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = []
    while (began := time.perf_counter()) < until:
        writer.write(b"".join((request, b"%032d" % next(numbers), rest)))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(head.decode() + (await reader.read(2000)).decode())
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(length)
        ended = time.perf_counter()
        done.append((ended, ended - began))
    writer.close()
    return done


async def _run(port: int, key: str, seconds: float, connections: int, size: int) -> dict[str, float]:
    before, after = picture_of(size)
    body_bytes = len(_HEAD) + len(before) + 32 + len(after) + len(_TAIL)
    request = (
        (
            b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key.encode() + b"\r\n"
            b"Content-Type: multipart/form-data; boundary=" + _BOUNDARY + b"\r\n"
            b"Content-Length: %d\r\n\r\n" % body_bytes
        )
        + _HEAD
        + before
    )
    numbers = itertools.count(time.time_ns())
    began = time.perf_counter()
    until, warm = began + seconds, began + min(2.0, seconds / 4)
    runs = await asyncio.gather(*(_submit(port, request, after + _TAIL, numbers, until) for _ in range(connections)))
    took = sorted(each for run in runs for ended, each in run if ended > warm)
    last = max(ended for run in runs for ended, _ in run)
    return {
        "per_s": len(took) / (last - warm),
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "bytes": len(before) + 32 + len(after),
    }


def main() -> None:
    """Submit for a while."""
    port, key, seconds, connections, size = sys.argv[1:]
    print(json.dumps(asyncio.run(_run(int(port), key, float(seconds), int(connections), int(size)))), flush=True)


if __name__ == "__main__":
    main()
