"""Records of rollouts: how the images of a model are shared between two of its versions, and what was decided about it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from schemas.records import EPOCH


class RolloutKind(StrEnum):
    """How a rollout shares.

    `blue_green` and `fixed` know all or nothing; `weighted` keeps a share; `canary` raises it by itself in steps; `shadow` gives users the
    stable version's results alone.
    """

    FIXED = "fixed"
    WEIGHTED = "weighted"
    CANARY = "canary"
    SHADOW = "shadow"
    BLUE_GREEN = "blue_green"


class RolloutState(StrEnum):
    """How it stands. All but `running` and `paused` are its end: `promoted` to the candidate, the others to the stable version."""

    RUNNING = "running"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"


class Decision(StrEnum):
    """What a window said."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


class Arm(StrEnum):
    """Which part of a rollout made a result. `shadow` results are seen by no user."""

    STABLE = "stable"
    CANDIDATE = "candidate"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryGuard:
    """When a canary may go on.

    A window is `window_s` of event time, or as many times that as it takes until each arm has `min_samples` outcomes and, where images are
    seen by both, as many of these with as many objects. `max_errors_added`: by how much the candidate's share of failures may exceed the
    stable one's; `max_latency_ratio`: its p95 over the stable one's; `max_disagreement`: the share of objects, 0..1, that pairs of results
    of the same image do not agree on.
    """

    window_s: float = 60.0
    min_samples: int = 100
    max_errors_added: float = 0.01
    max_latency_ratio: float = 1.5
    max_disagreement: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The rollout of a model. Topic `rollouts`, compacted by `name`, the model's: one at a time.

    `stable` and `candidate` are `name@version`. `share` (0..1) is the candidate's now, `steps` what a canary goes through and `step` where
    it is. `shadow_share`: of the images whose result users get from one arm, the share that the other one sees as well. Event time: the
    window that is being filled began at `window_start`, and what completed before `judged_until` has been looked at.
    """

    id: str
    name: str = ""
    kind: RolloutKind = RolloutKind.FIXED
    stable: str = ""
    candidate: str = ""
    steps: tuple[float, ...] = ()
    step: int = 0
    share: float = 0.0
    shadow_share: float = 0.0
    guard: CanaryGuard = field(default_factory=CanaryGuard)
    state: RolloutState = RolloutState.RUNNING
    reason: str = ""
    started_at: datetime = EPOCH
    changed_at: datetime = EPOCH
    window_start: datetime = EPOCH
    judged_until: datetime = EPOCH

    @property
    def live(self) -> bool:
        """Whether it shares images: running, or paused."""
        return self.state in (RolloutState.RUNNING, RolloutState.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """What an arm did in a window. `failures`: images that it could not detect in; `p95_ms`: from submission to result, online lane."""

    results: int = 0
    failures: int = 0
    p95_ms: float = 0.0
    boxes_per_image: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided about a rollout after a window, and on which figures. Topic `verdicts`, keyed by `name`; every one is kept.

    `pairs`: images that both arms saw; `objects`: what either found in them; `disagreement`: the share of these, 0..1, that the arms do not
    agree on. `step` and `share` are those of the window.
    """

    rollout_id: str
    name: str = ""
    decision: Decision = Decision.HOLD
    step: int = 0
    share: float = 0.0
    window_start: datetime = EPOCH
    window_end: datetime = EPOCH
    stable: ArmFigures = field(default_factory=ArmFigures)
    candidate: ArmFigures = field(default_factory=ArmFigures)
    pairs: int = 0
    objects: int = 0
    disagreement: float = 0.0
    reasons: tuple[str, ...] = ()
    at: datetime = EPOCH
