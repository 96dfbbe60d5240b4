"""What operators may do to versions of models."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.errors import ConfigurationError
from schemas.models import FileRef, ModelVersion, Stage
from schemas.rollouts import Rollout, RolloutState
from streams.rollout_ledger import Known
from streams.versions import added, next_version, promoted, retired

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ONE = ModelVersion(name="m", version="1", files=(FileRef(uri="file:///1", sha256="a"),), stage=Stage.STABLE)
TWO = ModelVersion(name="m", version="2", files=(FileRef(uri="file:///2", sha256="b"),))
OTHER = ModelVersion(name="n", version="12", stage=Stage.STABLE)
VERSIONS = {one.reference: one for one in (ONE, TWO, OTHER)}
KNOWN = Known({}, VERSIONS)
ROLLOUT = Rollout(id="r", name="m", stable="m@1", candidate="m@2")


def test_a_version_is_added_once_and_never_changes() -> None:
    three = replace(TWO, version="3")
    assert added(three, VERSIONS) == (three,)
    with pytest.raises(ConfigurationError, match="with other files"):
        added(replace(TWO, files=ONE.files), VERSIONS)
    with pytest.raises(ConfigurationError, match="is there already: "):
        added(TWO, VERSIONS)


def test_of_a_name_one_version_is_stable() -> None:
    demoted = replace(ONE, stage=Stage.CANDIDATE, changed_at=NOW)
    assert promoted("m@2", KNOWN, NOW) == (replace(TWO, stage=Stage.STABLE, changed_at=NOW), demoted)
    assert promoted("m@1", KNOWN, NOW) == ()
    three = replace(TWO, version="3", stage=Stage.STABLE, added_at=NOW)
    assert added(three, VERSIONS) == (three, demoted)


def test_what_is_in_use_is_neither_promoted_nor_retired_by_hand() -> None:
    during = Known({"m": ROLLOUT}, VERSIONS)
    with pytest.raises(ConfigurationError, match="a rollout of m runs"):
        promoted("m@2", during, NOW)
    with pytest.raises(ConfigurationError, match="is in a rollout"):
        retired("m@2", during, NOW)
    with pytest.raises(ConfigurationError, match="is stable"):
        retired("m@1", KNOWN, NOW)
    with pytest.raises(ConfigurationError, match="the registry has no 'm@9'"):
        retired("m@9", KNOWN, NOW)
    after = Known({"m": replace(ROLLOUT, state=RolloutState.ABORTED)}, VERSIONS)
    (gone,) = retired("m@2", after, NOW)
    assert gone == replace(TWO, stage=Stage.RETIRED, changed_at=NOW)
    assert retired("m@2", Known({}, {"m@2": gone}), NOW) == ()


def test_versions_are_numbered_by_themselves() -> None:
    assert next_version("m", VERSIONS) == "3"
    assert next_version("n", VERSIONS) == "13"
    assert next_version("new", VERSIONS) == "1"
    assert next_version("m", {"m@rc1": replace(ONE, version="rc1")}) == "1"
