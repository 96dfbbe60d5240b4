"""OpenVINO, imported so that it tells nobody. Everything here takes `ov` from this module, so that no other import comes first.

Imported plainly, it reports its use to its makers over the network, from a process of its own, and keeps an identity in the home directory.
It does without where the package `openvino_telemetry` is not there.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_telemetry", "ov"]


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported meanwhile, OpenVINO or NNCF, finds no package to report with."""
    name = "openvino_telemetry"
    there = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if there is None:
            del sys.modules[name]
        else:
            sys.modules[name] = there


with no_telemetry():
    import openvino as ov
