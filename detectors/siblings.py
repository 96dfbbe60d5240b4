"""An 8-bit sibling of a model: `NAME.int8.xml` (with its `.bin`) beside `NAME.onnx`, as `sightstream models export --int8` writes it.

Its parity report (`detectors.parity_report`) says of which model it was made and whether it finds the same.
"""

import logging
from dataclasses import replace
from pathlib import Path

from detectors.parity_report import read_parity_report, report_path
from detectors.spec import ModelFile, ModelSpec, read_model
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_MARK, _SUFFIXES = ".int8", (".xml", ".onnx")


def find_quantised(spec: ModelSpec) -> ModelSpec:
    """The sibling of `spec`'s model.

    Raises ConfigurationError where there is none, with the command that makes one, and for a pinned model: its pin is for other bytes.
    """
    path = spec.file
    sibling = _sibling(path)
    if sibling is None:
        command = f"sightstream models export {path} --to openvino --int8 --calibration DIR"
        raise ConfigurationError(f"{path} has no int8 sibling; make one: {command}")
    if spec.digest is not None:
        raise ConfigurationError(f"{path} is pinned by digest, but int8 would run {sibling}; set that as model.path")
    return replace(spec, path=str(sibling), name=spec.model_name, precision="int8")


def vouched_for(spec: ModelSpec, file: ModelFile) -> bool:
    """Whether an int8 sibling is there whose report holds for these very files; the log says why not.

    Never for a pinned model: the pin says which bytes may run, and a sibling's are others.
    """
    sibling = _sibling(spec.file)
    if sibling is None:
        return False
    report = read_parity_report(sibling)
    if spec.digest is not None:
        why = "the model is pinned by digest"
    elif report is None:
        why = "it has no parity report"
    elif (report.source, report.digest) != (file.digest, _digest(sibling)):
        why = "its parity report is about other files"
    elif not report.holds:
        why = "its parity report says that it finds something else"
    else:
        return True
    log.info("%s is left alone: %s", sibling, why)
    return False


def trace(spec: ModelSpec) -> str:
    """Changes when a sibling or its report comes, goes or is written anew; reads neither."""
    sibling = _sibling(spec.file)
    files = [] if sibling is None else [sibling, report_path(sibling)]
    return "; ".join(f"{path.name} {path.stat().st_mtime_ns}" for path in files if path.is_file()) or "no sibling"


def _sibling(path: Path) -> Path | None:
    siblings = (path.with_name(f"{path.stem}{_MARK}{suffix}") for suffix in _SUFFIXES)
    return next((sibling for sibling in siblings if sibling.is_file()), None)


def _digest(path: Path) -> str | None:
    try:
        return read_model(ModelSpec(path=str(path))).digest
    except ConfigurationError:
        return None
