"""Which version of a model an image goes to: what its reference asks for, looked up in the registry and in the rollouts that run."""

from dataclasses import dataclass
from typing import Protocol

from schemas.arms import choose
from schemas.errors import Reason, RejectedError
from schemas.models import ModelVersion, Stage
from schemas.rollouts import Rollout
from streams.fold import Latest

STABLE_SUFFIX = "@stable"


@dataclass(frozen=True, slots=True)
class Route:
    """Where an image goes: `model` is `name@version`, `rollout` the id of the rollout that chose it, `arm` a `schemas.rollouts.Arm`.

    `shadow`: the version (`name@version`) that sees the image as well, for `detections.shadow`.
    """

    model: str
    rollout: str | None = None
    arm: str | None = None
    shadow: str | None = None


class Routes(Protocol):
    """Says where images go. Asked for every image, on the worker's path: it must not block."""

    def resolve(self, asked: str | None, key: str) -> Route:
        """The route of an image of ordering key `key` whose reference asks for `asked` (`ImageRef.model`).

        The same for the same log. Raises RejectedError (MODEL_UNKNOWN) where there is no such model.
        """


class RegistryRoutes:
    """Routes over the folds of `models` and `rollouts`.

    `default` is what a reference that asks for nothing gets, as it would ask itself (`name`, `name@stable`, `name@version`); empty: `own`,
    the `name@version` that the worker was started with. That one is known also where the registry has never heard of it. A retired
    version is reached by its number alone.
    """

    def __init__(
        self, versions: Latest[ModelVersion], rollouts: Latest[Rollout] | None = None, default: str = "", own: str = ""
    ) -> None:
        self._versions, self._rollouts, self._default, self._own = versions, rollouts, default, own

    def resolve(self, asked: str | None, key: str) -> Route:
        """See `Routes`."""
        wanted = asked or self._default or self._own
        name, versioned, _ = wanted.partition("@")
        if not versioned:
            return self._rolled_out(name, key) or Route(self._stable(name))
        if wanted.endswith(STABLE_SUFFIX):
            return Route(self._stable(name))
        if self._known(wanted):
            return Route(wanted)
        raise RejectedError(Reason.MODEL_UNKNOWN, f"there is no model {wanted!r}")

    def _rolled_out(self, name: str, key: str) -> Route | None:
        """None where no rollout runs, or a version of it is gone: that must not cost a user's image its result."""
        rollout = None if self._rollouts is None else self._rollouts.get(name)
        if rollout is None or not rollout.live:
            return None
        if not (self._known(rollout.stable) and self._known(rollout.candidate)):
            return None
        choice = choose(rollout, key)
        return Route(choice.model, rollout.id, choice.arm, choice.shadow)

    def _stable(self, name: str) -> str:
        """Of two, which is how it looks while another is promoted, the later one."""
        named = [version for version in self._versions.all().values() if version.name == name]
        stable = [version for version in named if version.stage is Stage.STABLE]
        if stable:
            return max(stable, key=lambda version: (version.changed_at, version.version)).reference
        if self._own and self._own.partition("@")[0] == name:
            return self._own
        missing = f"no version of {name!r} is stable" if named else f"there is no model {name!r}"
        raise RejectedError(Reason.MODEL_UNKNOWN, missing)

    def _known(self, reference: str) -> bool:
        return reference == self._own or self._versions.get(reference) is not None
