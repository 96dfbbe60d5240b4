"""What operators do to versions of models: pure functions from what there is to what is to be written, which say why they refuse."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from schemas.errors import ConfigurationError
from schemas.models import ModelVersion, Stage
from streams.rollout_ledger import Known


def added(version: ModelVersion, versions: Mapping[str, ModelVersion]) -> tuple[ModelVersion, ...]:
    """The version, and what stops being stable where it is. A version never changes what it is: ConfigurationError where there is one."""
    known = versions.get(version.reference)
    if known is not None and known.files != version.files:
        raise ConfigurationError(
            f"{version.reference} is there already, with other files: give this one another version"
        )
    if known is not None:
        raise ConfigurationError(f"{version.reference} is there already: `sightstream models show {version.reference}`")
    demoted = _demoted(version, versions, version.added_at) if version.stage is Stage.STABLE else ()
    return (version, *demoted)


def promoted(reference: str, known: Known, now: datetime) -> tuple[ModelVersion, ...]:
    """This one is stable from now on, and whatever was is a candidate again. Nothing, where it is already.

    Raises ConfigurationError where there is no such version, and while a rollout of the model runs, which has its own end.
    """
    version = _known(reference, known.versions)
    rollout = known.rollouts.get(version.name)
    if rollout is not None and rollout.live:
        raise ConfigurationError(f"a rollout of {version.name} runs: `sightstream rollout promote` or `abort` ends it")
    demoted = _demoted(version, known.versions, now)
    if version.stage is Stage.STABLE and not demoted:
        return ()
    return (replace(version, stage=Stage.STABLE, changed_at=now), *demoted)


def retired(reference: str, known: Known, now: datetime) -> tuple[ModelVersion, ...]:
    """From now on it is reached by its number alone. Raises ConfigurationError for what is stable, or in a rollout that runs."""
    version = _known(reference, known.versions)
    rollout = known.rollouts.get(version.name)
    if version.stage is Stage.STABLE:
        raise ConfigurationError(f"{reference} is stable: promote another version first")
    if rollout is not None and rollout.live and reference in (rollout.stable, rollout.candidate):
        raise ConfigurationError(f"{reference} is in a rollout that runs: `sightstream rollout abort` ends it")
    return () if version.stage is Stage.RETIRED else (replace(version, stage=Stage.RETIRED, changed_at=now),)


def next_version(name: str, versions: Mapping[str, ModelVersion]) -> str:
    """One more than the highest number that there is."""
    numbers = [int(one.version) for one in versions.values() if one.name == name and one.version.isdecimal()]
    return str(max(numbers, default=0) + 1)


def _demoted(version: ModelVersion, versions: Mapping[str, ModelVersion], now: datetime) -> tuple[ModelVersion, ...]:
    return tuple(
        replace(other, stage=Stage.CANDIDATE, changed_at=now)
        for other in versions.values()
        if other.name == version.name and other.stage is Stage.STABLE and other.reference != version.reference
    )


def _known(reference: str, versions: Mapping[str, ModelVersion]) -> ModelVersion:
    if reference not in versions:
        raise ConfigurationError(f"the registry has no {reference!r}: `sightstream models list` shows what it has")
    return versions[reference]
