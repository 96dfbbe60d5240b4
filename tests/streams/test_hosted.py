"""Where images go in a worker with many models: to the version that the registry names, and to the one before until that is here."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from detectors.curve import LatencyCurve, Paced, PacedDetector
from detectors.fake import FakeDetector
from detectors.hosting import Host, Loaded
from detectors.hosting_policy import ModelsPolicy
from detectors.spec import ModelSpec
from schemas.errors import BusyError, ConfigurationError
from schemas.models import ModelVersion, Stage
from schemas.rollouts import Rollout, RolloutKind, RolloutState
from streams.hosted import Answer, DefaultModel, HostedModels, Registry
from streams.routes import RegistryRoutes
from streams.work import Seat
from tests.support.deliveries import eventually

BATCH = pa.schema([("model", pa.string()), ("key", pa.string()), ("id", pa.string())])


def batch(*asked: str | None) -> pa.RecordBatch:
    rows = [{"model": one, "key": f"camera-{at}", "id": f"i{at}"} for at, one in enumerate(asked)]
    return pa.RecordBatch.from_pylist(rows, schema=BATCH)


@dataclass
class Opener:
    """Opens anything but what is `broken`, once its `gates` are open."""

    broken: set[str] = field(default_factory=set)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def prepare(self, version: ModelVersion) -> int:
        if gate := self.gates.get(version.reference):
            assert gate.wait(60)
        if version.reference in self.broken:
            raise ConfigurationError("its files have another digest")
        return 1

    def open(self, version: ModelVersion) -> Paced:
        spec = ModelSpec(path="fake", name=version.name, version=version.version)
        return PacedDetector(FakeDetector(spec), LatencyCurve(((1, float(version.version)),)))


class World:
    """A registry with `m@1` stable, and all that stands on it."""

    def __init__(self, **policy: float) -> None:
        self.registry, self.opener, self.now = Registry(), Opener(), 0.0
        self.say("m", 1, Stage.STABLE)
        chosen = ModelsPolicy(default="m", **policy)  # type: ignore[arg-type]
        self.host = Host(self.registry.versions.get, self.opener, chosen, now=lambda: self.now)
        routes = RegistryRoutes(self.registry.versions, self.registry.rollouts, "m")
        self.models = HostedModels(routes, self.registry, self.host, "m")

    def say(self, name: str, number: int, stage: Stage = Stage.CANDIDATE) -> None:
        version = ModelVersion(name=name, version=str(number), stage=stage)
        self.registry.versions.put(version.reference, version)

    def promote(self, number: int) -> None:
        self.say("m", number, Stage.STABLE)
        for other in self.registry.versions.all().values():
            if other.name == "m" and other.version != str(number):
                self.say("m", int(other.version))

    def roll_out(self, **changes: object) -> None:
        given = {"kind": RolloutKind.WEIGHTED, "stable": "m@1", "candidate": "m@2", "share": 0.5} | changes
        self.registry.rollouts.put("m", Rollout(id="r", name="m", **given))  # type: ignore[arg-type]

    def where(self, *asked: str | None) -> list[str]:
        """The versions that images go to, or why they go nowhere."""
        seats = self.models.seat(batch(*asked))
        if isinstance(seats, Loaded):
            return [seats.reference] * len(asked)
        return [_said(seat) for seat in seats]

    def await_loaded(self, reference: str) -> None:
        eventually(lambda: self.host.get(reference) is not None, f"{reference} is loaded")


def _said(answer: Answer) -> str:
    return answer.loaded.reference if isinstance(answer, Seat) else str(answer.reason)


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def world(**policy: float) -> World:
        made.append(World(**policy))
        return made[-1]

    yield world
    for one in made:
        for gate in one.opener.gates.values():
            gate.set()
        one.host.close()


def test_all_that_ask_alike_are_seated_at_once(make: Callable[..., World]) -> None:
    world = make()
    loaded = world.models.start()
    assert world.models.seat(batch(None, None)) is loaded
    assert world.models.seat(batch(None, "m", "m@stable", "m@1")) != []
    assert world.where(None, "m", "m@stable", "m@1") == ["m@1"] * 4
    assert world.where("other", "m@9", None) == ["model_unknown", "model_unknown", "m@1"]


def test_a_promoted_version_takes_over_once_it_is_here_and_until_then_nothing_waits(make: Callable[..., World]) -> None:
    world = make()
    default = DefaultModel(world.models, world.models.start())
    assert (default.model.version, default.now.ms(1)) == ("1", 1.0)
    world.opener.gates["m@2"] = threading.Event()
    world.promote(2)
    assert world.where(None, "m", "m@stable") == ["m@1"] * 3
    world.opener.gates["m@2"].set()
    world.await_loaded("m@2")
    assert world.where(None, "m", "m@stable", "m@1") == ["m@2", "m@2", "m@2", "m@1"]
    assert (default.model.version, default.now.ms(1)) == ("2", 2.0)


def test_a_refused_version_leaves_the_old_one_in_place_and_who_asks_for_it_hears_why(
    make: Callable[..., World],
) -> None:
    world = make()
    world.models.start()
    world.opener.broken.add("m@2")
    world.promote(2)
    eventually(lambda: "digest" in str(world.host.why_not("m@2")), "it is refused")
    assert world.where(None, "m@stable") == ["m@1"] * 2
    answers = world.models.seat(batch("m@2"))
    assert isinstance(answers, list)
    (answer,) = answers
    assert isinstance(answer, BusyError)
    assert "another digest" in str(answer)


def test_who_asks_for_a_version_that_is_being_loaded_waits_alone(make: Callable[..., World]) -> None:
    world = make(load_wait_s=30)
    world.models.start()
    world.say("m", 3)
    world.opener.gates["m@3"] = gate = threading.Event()
    assert world.where("m@3", None) == ["model_unavailable", "m@1"], "others would have to wait with it"
    threading.Timer(0.05, gate.set).start()
    assert world.where("m@3", "m@3") == ["m@3", "m@3"]
    world.opener.gates["m@4"] = threading.Event()
    world.say("m", 4)
    world.host.want("m@4")
    world.now += 31
    assert world.where("m@4") == ["model_unavailable"], "long enough"


def test_both_arms_are_loaded_before_images_come_and_shadows_go_along(make: Callable[..., World]) -> None:
    world = make()
    world.models.start()
    world.say("m", 2)
    world.roll_out(shadow_share=1.0)
    world.await_loaded("m@2")
    seats = world.models.seat(batch(*[None] * 40))
    assert isinstance(seats, list)
    taken = {
        (seat.loaded.reference, seat.route.arm, seat.shadow.reference)
        for seat in seats
        if isinstance(seat, Seat) and seat.shadow
    }
    assert taken == {("m@1", "stable", "m@2"), ("m@2", "candidate", "m@1")}
    assert world.where("m@stable", "m@2") == ["m@1", "m@2"]


def test_a_rollout_to_a_version_that_is_refused_costs_no_image_its_result_nor_counts(
    make: Callable[..., World],
) -> None:
    world = make()
    world.models.start()
    world.opener.broken.add("m@2")
    world.say("m", 2)
    world.roll_out(share=1.0)
    eventually(lambda: "digest" in str(world.host.why_not("m@2")), "it is refused")
    seats = world.models.seat(batch(None, None))
    assert isinstance(seats, list)
    assert [(seat.loaded.reference, seat.route.arm) for seat in seats if isinstance(seat, Seat)] == [("m@1", None)] * 2


def test_an_ended_rollout_is_none(make: Callable[..., World]) -> None:
    world = make()
    loaded = world.models.start()
    world.say("m", 2)
    world.roll_out(state=RolloutState.ROLLED_BACK)
    assert world.models.seat(batch(None, None)) is loaded


def test_another_model_is_loaded_when_it_is_asked_for_and_switched_like_the_first(make: Callable[..., World]) -> None:
    world = make(load_wait_s=30)
    world.models.start()
    world.say("n", 1, Stage.STABLE)
    assert world.where("n") == ["n@1"], "alone it waits"
    world.say("n", 2, Stage.STABLE)
    world.say("n", 1)
    world.await_loaded("n@2")
    assert world.where("n", None) == ["n@2", "m@1"]


def test_without_a_stable_version_a_worker_does_not_start(make: Callable[..., World]) -> None:
    world = make()
    world.say("m", 1)
    with pytest.raises(ConfigurationError, match=r"models\.default is 'm': no version of 'm' is stable"):
        world.models.start()
    assert world.where("m") == ["model_unknown"]
