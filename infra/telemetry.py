"""What a process tells about itself: its build, and whether it is ready."""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import Info, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nothing reads

BUILD = Info("sightstream_build", "What runs here.")

Probe = Callable[[], str | None]
"""None while all is well, else one line that says what is missing. Must answer at once: no I/O, no lock that is held for long."""


def build_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("sightstream")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


def describe_build(git_sha: str, model_digest: str = "") -> None:
    """Publish `sightstream_build_info`."""
    BUILD.info({"version": build_version(), "git_sha": git_sha, "model_digest": model_digest})


class Health:
    """Named probes of the parts of one process. Alive: no `live` probe complains. Ready: none at all does, and it is not stopping."""

    def __init__(self) -> None:
        self._live: dict[str, Probe] = {}
        self._ready: dict[str, Probe] = {}
        self._stopping = False

    def must_live(self, name: str, probe: Probe) -> None:
        """Register a condition without which a supervisor should restart the process."""
        self._live[name] = probe

    def must_be_ready(self, name: str, probe: Probe) -> None:
        """Register a condition without which the process should get no traffic."""
        self._ready[name] = probe

    def stopping(self) -> None:
        """From now on the process is alive, and not ready."""
        self._stopping = True

    def alive(self) -> Mapping[str, str]:
        """What is wrong enough for a restart: part -> complaint."""
        return _complaints(self._live)

    def unready(self) -> Mapping[str, str]:
        """What stands in the way of work: part -> complaint."""
        stopping = {"process": "is stopping"} if self._stopping else {}
        return {**self.alive(), **_complaints(self._ready), **stopping}


def _complaints(probes: Mapping[str, Probe]) -> dict[str, str]:
    """A probe that raises complains by that: health must always have an answer."""
    found = {}
    for name, probe in probes.items():
        try:
            complaint = probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, the part is not well
            complaint = f"{type(error).__name__}: {error}"
        if complaint:
            found[name] = complaint
    return found
