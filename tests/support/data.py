"""Where test data lies that is not part of the repository."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def shared_dir() -> Path | None:
    """The directory `shared` beside the repository (photographs, a model), or None where there is none."""
    path = ROOT.parent / "shared"
    return path if path.is_dir() else None


def may_skip() -> bool:
    """Whether tests may be skipped for want of that data: not in CI, where nobody would see that they were."""
    return not os.environ.get("CI")
