"""An Ultralytics checkpoint to ONNX, in a process of its own: exporting changes which devices torch sees, and more, for good.

`python -m detectors.export_checkpoint NAME.pt` writes `NAME.onnx` beside it: batch, height and width free.
"""

import subprocess
import sys
from pathlib import Path

from detectors.choice import is_installed
from detectors.ultralytics import import_confined
from schemas.errors import ConfigurationError

_TIMEOUT_S = 1800
_TOLD = "export failed: "


def export_checkpoint(source: Path, directory: Path) -> Path:
    """Write the ONNX of a `.pt` into `directory`. Raises ConfigurationError without the extras, or if it is not a detection checkpoint."""
    for package, extra in (("ultralytics", "ultralytics"), ("onnx", "export"), ("onnxslim", "export")):
        if not is_installed(package):
            raise ConfigurationError(
                f"exporting {source.name} needs {package}, which is not installed: pip install 'sightstream[{extra}]'"
            )
    # Ultralytics writes beside what it reads.
    copy = directory / source.name
    copy.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "detectors.export_checkpoint", str(copy)]
    try:
        # This interpreter, this module, and a path of our own making.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"exporting {source} took more than {_TIMEOUT_S} s") from error
    finally:
        copy.unlink()
    made = copy.with_suffix(".onnx")
    if done.returncode or not made.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        why = next((line.removeprefix(_TOLD) for line in lines if line.startswith(_TOLD)), lines[-1])
        raise ConfigurationError(f"{source} cannot be exported: {why}")
    return made


def _main(path: str) -> None:
    ultralytics = import_confined()
    try:
        model = ultralytics.YOLO(path, task="detect")
    except Exception as error:  # noqa: BLE001 - a KeyError, an IndexError: what a pickle's reader makes of other bytes
        sys.exit(f"{_TOLD}it is not a checkpoint file that Ultralytics loads safely ({type(error).__name__})")
    try:
        model.export(format="onnx", dynamic=True, simplify=True, device="cpu")
    except Exception as error:  # noqa: BLE001 - whatever the library raises is the reason for which it failed
        sys.exit(f"{_TOLD}{error}")


if __name__ == "__main__":
    _main(sys.argv[1])
