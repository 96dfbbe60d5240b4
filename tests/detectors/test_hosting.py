"""Hosting versions of models: beside each other, within a bound, let go only when nobody uses them, refused without harm."""

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from detectors.curve import LatencyCurve, Paced, PacedDetector
from detectors.fake import FakeDetector
from detectors.hosting import Host
from detectors.hosting_policy import ModelsPolicy
from detectors.spec import ModelSpec
from schemas.errors import BusyError, ConfigurationError, Reason
from schemas.models import FileRef, ModelState, ModelVersion, Stage
from tests.support.deliveries import eventually

MB = 1 << 20


def version(number: int, digest: str = "sha256:0", name: str = "m") -> ModelVersion:
    return ModelVersion(name=name, version=str(number), digest=digest, files=(FileRef(uri=f"file:///{number}"),))


class Closing(FakeDetector):
    """A stand-in that notes when it is closed."""

    def __init__(self, spec: ModelSpec, closed: list[str]) -> None:
        super().__init__(spec)
        self._closed, self._name = closed, f"{spec.name}@{spec.version}"

    def close(self) -> None:
        self._closed.append(self._name)


@dataclass
class ScriptedOpener:
    """Each version takes 10 MB; `failing` says what preparing some of them raises, `gate` holds loading until it is set."""

    failing: dict[str, Exception] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def prepare(self, version: ModelVersion) -> int:
        assert self.gate.wait(60)
        if error := self.failing.get(version.reference):
            raise error
        return 10 * MB

    def open(self, version: ModelVersion) -> Paced:
        self.opened.append(version.reference)
        spec = ModelSpec(path="fake", name=version.name, version=version.version)
        return PacedDetector(Closing(spec, self.closed), LatencyCurve(((1, 1.0),)))


@dataclass
class Scene:
    """A host, what it is made of, and what it told."""

    versions: dict[str, ModelVersion]
    opener: ScriptedOpener
    told: list[tuple[str, ModelState, str]]
    host: Host
    now: float = 0.0

    def loaded(self, *references: str) -> None:
        for reference in references:
            self.host.load(reference)
            self.now += 1


@pytest.fixture
def make() -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def open_host(count: int = 4, **policy: float) -> Scene:
        versions = {f"m@{number}": version(number) for number in range(1, count + 1)}
        opener, told = ScriptedOpener(), list[tuple[str, ModelState, str]]()
        opener.gate.set()

        def tell(version: ModelVersion, state: ModelState, reason: str) -> None:
            told.append((version.reference, state, reason))

        scene = Scene(versions, opener, told, None)  # type: ignore[arg-type]
        chosen = ModelsPolicy(**{"memory_bytes": 25 * MB, **policy})  # type: ignore[arg-type]
        scene.host = Host(versions.get, opener, chosen, tell, lambda: scene.now)
        made.append(scene)
        return scene

    yield open_host
    for scene in made:
        scene.opener.gate.set()
        scene.host.close()


def test_versions_run_side_by_side_until_the_memory_is_full_then_the_least_recently_used_goes(
    make: Callable[..., Scene],
) -> None:
    scene = make()
    scene.loaded("m@1", "m@2")
    scene.now += 1
    assert scene.host.get("m@1") is not None, "that counts as a use"
    scene.loaded("m@3")
    assert scene.host.get("m@2") is None
    assert scene.host.get("m@1") is not None
    assert scene.host.get("m@3") is not None
    assert ("m@2", ModelState.UNLOADED, "made room for m@3") in scene.told
    eventually(lambda: scene.opener.closed == ["m@2"], "what was let go is closed")
    scene.loaded("m@2")
    assert scene.host.get("m@2") is not None, "it may come back"


def test_what_is_in_use_is_closed_only_afterwards(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.loaded("m@1", "m@2")
    used = scene.host.get("m@1")
    scene.now += 1
    scene.host.get("m@2")
    scene.loaded("m@3")
    assert scene.host.get("m@1") is None
    assert scene.opener.closed == []
    assert used is not None
    assert used.detector.model.version == "1"
    del used
    gc.collect()
    eventually(lambda: scene.opener.closed == ["m@1"], "nobody uses it any more")


def test_what_is_needed_stays_and_what_does_not_fit_beside_it_is_refused(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.host.need(["m@1", "m@2"])
    scene.loaded("m@1", "m@2")
    with pytest.raises(ConfigurationError, match=r"more than models\.memory_bytes"):
        scene.host.load("m@3")
    assert scene.host.get("m@1") is not None
    assert scene.host.get("m@2") is not None


def test_a_version_that_fails_is_refused_said_and_tried_again_after_a_while(make: Callable[..., Scene]) -> None:
    scene = make(retry_s=60)
    scene.opener.failing["m@2"] = RuntimeError("no model at all")
    scene.loaded("m@1")
    with pytest.raises(ConfigurationError, match="no model at all"):
        scene.host.load("m@2")
    assert scene.told[-1] == ("m@2", ModelState.REFUSED, "RuntimeError: no model at all")
    assert scene.host.get("m@1") is not None
    error = scene.host.why_not("m@2")
    assert (error.reason, error.retry_after_s) == (Reason.MODEL_UNAVAILABLE, 60)
    scene.opener.failing.clear()
    scene.host.want("m@2")
    assert scene.host.get("m@2") is None, "it is too early"
    scene.now += 61
    scene.host.load("m@2")
    assert scene.host.get("m@2") is not None


def test_a_record_that_changes_loads_anew_while_the_old_one_goes_on(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.loaded("m@1")
    before = scene.host.get("m@1")
    scene.versions["m@1"] = replace(scene.versions["m@1"], stage=Stage.STABLE, licence="MIT")
    scene.host.want("m@1")
    assert scene.host.states["m@1"][1] is ModelState.LOADED, "its history changes nothing"
    scene.opener.gate.clear()
    scene.versions["m@1"] = version(1, "sha256:other")
    scene.host.want("m@1")
    assert scene.host.get("m@1") is before
    scene.opener.gate.set()
    eventually(lambda: scene.host.get("m@1") is not before, "the new one")


def test_images_wait_for_a_version_that_is_being_loaded_but_not_for_ever(make: Callable[..., Scene]) -> None:
    scene = make(load_wait_s=5)
    scene.opener.gate.clear()
    scene.host.want("m@1")
    assert isinstance(scene.host.why_not("m@1"), BusyError)
    threading.Timer(0.05, scene.opener.gate.set).start()
    scene.host.wait(["m@1"])
    assert scene.host.get("m@1") is not None
    scene.opener.gate.clear()
    scene.host.want("m@2")
    scene.now += 6
    scene.host.wait(["m@2"])  # at once: others have waited for it long enough
    assert scene.host.get("m@2") is None


def test_the_same_images_have_other_results_under_another_version(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.loaded("m@1", "m@2")
    one, two = scene.host.get("m@1"), scene.host.get("m@2")
    assert one is not None
    assert two is not None
    assert one.identity != two.identity
