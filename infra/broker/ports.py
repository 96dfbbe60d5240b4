"""Ports on the loopback interface."""

import random
import socket

from schemas.errors import ConfigurationError

# Below Linux's and the IANA's ranges for outgoing connections, so that no client takes a port between choice and use.
_RANGE = range(20000, 32000)
HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """That many different ports that are free now."""
    candidates = random.sample(_RANGE, len(_RANGE))
    found = [port for _, port in zip(range(count), filter(is_free, candidates), strict=False)]
    if len(found) < count:
        raise ConfigurationError(f"no {count} free ports in {_RANGE.start}-{_RANGE.stop - 1}")
    return found


def answers(port: int) -> bool:
    """Whether somebody listens on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
