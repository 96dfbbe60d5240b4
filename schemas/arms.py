"""Which arm of a rollout an image belongs to: a pure function of rollout and key, so that every worker and every judge agrees."""

from dataclasses import dataclass
from hashlib import blake2b

from schemas.rollouts import Arm, Rollout, RolloutKind, RolloutState

_FRACTION_BITS = 53  # what a float holds exactly: 1.0 is never reached, so that a share of 1 is everybody


@dataclass(frozen=True, slots=True)
class Choice:
    """Of one image: the version (`name@version`) whose result users get, its arm, and the version that sees the image as well, if any."""

    model: str
    arm: Arm
    shadow: str | None = None


def choose(rollout: Rollout, key: str) -> Choice:
    """The arm of the images of an ordering key.

    Sticky: the same key gets the same arm for as long as the shares stay. A raised `share` moves keys from the stable version to the
    candidate and none back; a raised `shadow_share` only adds keys. The two are drawn independently. A rollout that has ended has one
    arm, and no shadow.
    """
    if not rollout.live:
        promoted = rollout.state is RolloutState.PROMOTED
        return _choice(rollout, candidate=promoted, shadowed=False)
    candidate = _position(rollout.id, key, b"arm") < candidate_share(rollout)
    return _choice(rollout, candidate, is_shadowed(rollout, key))


def is_shadowed(rollout: Rollout, key: str) -> bool:
    """Whether the images of an ordering key are seen by both versions while the rollout is live."""
    return _position(rollout.id, key, b"shadow") < rollout.shadow_share


def candidate_share(rollout: Rollout) -> float:
    """The share of keys, 0..1, whose users get the candidate's results. What its kind does not know is not in it: half of `blue_green`."""
    match rollout.kind:
        case RolloutKind.SHADOW:
            return 0.0
        case RolloutKind.FIXED | RolloutKind.BLUE_GREEN:
            return 1.0 if rollout.share >= 1.0 else 0.0
        case RolloutKind.WEIGHTED | RolloutKind.CANARY:
            return rollout.share


def _position(rollout_id: str, key: str, draw: bytes) -> float:
    """Where a key stands in 0 <= x < 1, evenly over keys. Each `draw` (16 bytes at most) is independent of the others."""
    digest = blake2b(f"{rollout_id}\0{key}".encode(), digest_size=8, person=draw).digest()
    fraction: float = (int.from_bytes(digest) >> (64 - _FRACTION_BITS)) / 2**_FRACTION_BITS
    return fraction


def _choice(rollout: Rollout, candidate: bool, shadowed: bool) -> Choice:
    arms = [(rollout.stable, Arm.STABLE), (rollout.candidate, Arm.CANDIDATE)]
    (model, arm), (other, _) = reversed(arms) if candidate else arms
    return Choice(model, arm, other if shadowed else None)
