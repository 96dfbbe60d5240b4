"""Routes: what a reference may ask for, and what it gets."""

from datetime import UTC, datetime

import pytest

from schemas.errors import Reason, RejectedError
from schemas.models import ModelVersion, Stage
from schemas.rollouts import Rollout, RolloutKind, RolloutState
from streams.fold import Latest
from streams.routes import RegistryRoutes, Route

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def versions(*known: ModelVersion) -> Latest[ModelVersion]:
    fold = Latest(ModelVersion)
    for version in known:
        fold.put(version.reference, version)
    return fold


def rollouts(state: RolloutState = RolloutState.RUNNING, candidate: str = "yolo@3") -> Latest[Rollout]:
    fold = Latest(Rollout)
    fold.put(
        "yolo",
        Rollout(
            id="r1",
            name="yolo",
            kind=RolloutKind.CANARY,
            stable="yolo@2",
            candidate=candidate,
            share=1.0,
            shadow_share=1.0,
            state=state,
        ),
    )
    return fold


ONE = ModelVersion(name="yolo", version="1", stage=Stage.RETIRED)
TWO = ModelVersion(name="yolo", version="2", stage=Stage.STABLE)
THREE = ModelVersion(name="yolo", version="3")
CODES = ModelVersion(name="codes", version="1")
KNOWN = versions(ONE, TWO, THREE, CODES)


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("yolo", "yolo@2"),
        ("yolo@stable", "yolo@2"),
        ("yolo@3", "yolo@3"),
        ("yolo@1", "yolo@1"),
        ("codes@1", "codes@1"),
        (None, "own@7"),
        ("", "own@7"),
        ("own", "own@7"),
        ("own@7", "own@7"),
        ("own@stable", "own@7"),
    ],
)
def test_what_may_be_asked_for(asked: str | None, model: str) -> None:
    assert RegistryRoutes(KNOWN, own="own@7").resolve(asked, "key") == Route(model)


@pytest.mark.parametrize(
    "asked", ["nothing", "nothing@1", "yolo@9", "yolo@", "codes", "codes@stable", "@1", "own@8", "@stable"]
)
def test_what_there_is_not_is_a_stated_failure(asked: str) -> None:
    with pytest.raises(RejectedError) as raised:
        RegistryRoutes(KNOWN, own="own@7").resolve(asked, "key")
    assert raised.value.reason is Reason.MODEL_UNKNOWN


def test_without_anything_known_nothing_is_routed() -> None:
    with pytest.raises(RejectedError):
        RegistryRoutes(versions()).resolve(None, "key")


def test_the_default_is_asked_for_like_any_other() -> None:
    assert RegistryRoutes(KNOWN, default="yolo", own="own@7").resolve(None, "key") == Route("yolo@2")
    running = RegistryRoutes(KNOWN, rollouts(), default="yolo", own="own@7")
    assert running.resolve(None, "key").model == "yolo@3"
    assert RegistryRoutes(KNOWN, rollouts(), default="yolo@stable").resolve(None, "key") == Route("yolo@2")


def test_a_name_alone_is_what_a_rollout_shares() -> None:
    routes = RegistryRoutes(KNOWN, rollouts())
    assert routes.resolve("yolo", "key") == Route("yolo@3", "r1", "candidate", "yolo@2")
    assert routes.resolve("yolo@stable", "key") == Route("yolo@2")
    assert routes.resolve("yolo@3", "key") == Route("yolo@3")


def test_a_paused_rollout_keeps_its_shares_and_an_ended_one_has_none() -> None:
    assert RegistryRoutes(KNOWN, rollouts(RolloutState.PAUSED)).resolve("yolo", "key").model == "yolo@3"
    for state in (RolloutState.PROMOTED, RolloutState.ABORTED, RolloutState.ROLLED_BACK):
        assert RegistryRoutes(KNOWN, rollouts(state)).resolve("yolo", "key") == Route("yolo@2")


def test_a_rollout_to_a_version_that_is_gone_costs_no_image_its_result() -> None:
    assert RegistryRoutes(KNOWN, rollouts(candidate="yolo@9")).resolve("yolo", "key") == Route("yolo@2")


def test_while_another_is_promoted_the_later_one_is_stable() -> None:
    later = ModelVersion(name="yolo", version="3", stage=Stage.STABLE, changed_at=NOON)
    assert RegistryRoutes(versions(TWO, later)).resolve("yolo", "key") == Route("yolo@3")
