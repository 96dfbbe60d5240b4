"""Where test data lies that is not part of the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def shared_dir() -> Path | None:
    """The directory `shared` beside the repository (photographs, a model), or None where there is none."""
    path = ROOT.parent / "shared"
    return path if path.is_dir() else None
