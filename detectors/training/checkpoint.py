"""A network on disk: weights, what they are weights of, and where they come from; in a run's `last.pt` also all that goes on from there."""

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detectors.training.network import Network, NetworkPlan
from schemas import failpoints
from schemas.errors import ConfigurationError, FatalError

PREVIOUS = ".previous"
_FORMAT = 1
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A trained network. `weights`: the averaged ones (EMA), float32 on the CPU, by their names in `Network`.

    `names`: classes, by class id. `image_size`: side in pixels of the square that it was evaluated on. `step`: optimisation steps so
    far. `scores`: `map50` and `map50_95` on the validation set, in 0..1, empty before the first evaluation. `recipe`: all of the
    recipe, as TOML has it. `data_digest`: `sha256:` + hex of the training set. `code_version`: package version, and commit if known.
    `progress`: what a run needs beside this to go on; None in `best.pt`.
    """

    names: tuple[str, ...]
    plan: NetworkPlan
    image_size: int
    step: int
    weights: Mapping[str, Tensor] = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)
    data_digest: str
    code_version: str
    scores: Mapping[str, float]
    progress: Mapping[str, Any] | None = field(default=None, repr=False)

    def build(self) -> Network:
        """The network with these weights on the CPU, for inference. Raises ConfigurationError where they are not of this plan."""
        network = Network(len(self.names), self.plan)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise ConfigurationError(f"the weights are not of the network {self.plan}: {error}") from error
        network.eval()
        return network


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote; only data is unpickled, so that a stranger's file can do no harm.

    Raises ConfigurationError where the file is missing, damaged or something else.
    """
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        if content.pop("format") != _FORMAT:
            raise ConfigurationError(f"{path} was written by another version of sightstream: train anew")
        return Checkpoint(names=tuple(content.pop("names")), plan=NetworkPlan(**content.pop("plan")), **content)
    except OSError as error:
        raise ConfigurationError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise ConfigurationError(f"{path} is not a checkpoint of sightstream, or it is damaged") from error


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the file `path`, whole and durable or not at all; what was there is kept beside it (`PREVIOUS`).

    Raises FatalError where the disk refuses, with what was there untouched.
    """
    content = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    content |= {"format": _FORMAT, "plan": asdict(checkpoint.plan), "names": list(checkpoint.names)}
    content |= {name: dict(content[name]) for name in ("weights", "recipe", "scores")}
    # Serialised in memory first: the time in which only half a file is there is that of one write.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    part = path.with_name(f"{path.name}.part")
    try:
        _write_durably(part, buffer.getbuffer())
        _keep_previous(path)
        failpoints.reach("checkpoint.renaming")
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise FatalError(f"cannot write the checkpoint {path}: {error.strerror}; the one before it is kept") from error


def _write_durably(path: Path, data: memoryview) -> None:
    with path.open("wb", buffering=0) as file:
        while data:
            data = data[file.write(data[:_CHUNK_BYTES]) :]
            failpoints.reach("checkpoint.writing")
        os.fsync(file.fileno())


def _keep_previous(path: Path) -> None:
    """Another name for the file that is about to be replaced; where the file system has no links, there is only the one."""
    previous = path.with_name(f"{path.name}{PREVIOUS}")
    previous.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(path, previous)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
