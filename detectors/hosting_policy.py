"""Knobs of hosting models of the registry; imports nothing, so that settings can hold them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsPolicy:
    """Which models of the registry a worker runs, and how many at once.

    `default`: what an image gets that asks for none (`name`, `name@stable`, `name@version`); empty: no registry, and the model of the
    section `model` for all. `memory_bytes`: what loaded versions may take together; beyond it those go that were used least recently, but
    none that is needed now. `load_wait_s`: how long images may wait for a version that is being loaded before they go to a retry topic.
    `retry_s`: after how long a version that could not be loaded is tried again. `largest_input`: the longest input side in pixels of all
    that is hosted, to which large images may be decoded reduced; a version with a larger one is refused. `rehearse`: open a version in a
    process of its own first, at low priority: what crashes or measures does it there.
    """

    default: str = ""
    memory_bytes: int = 4 * 1024**3
    load_wait_s: float = 2.0
    retry_s: float = 60.0
    largest_input: int = 1280
    rehearse: bool = True

    def __post_init__(self) -> None:
        if min(self.memory_bytes, self.largest_input) <= 0 or min(self.load_wait_s, self.retry_s) < 0:
            raise ValueError("memory_bytes and largest_input must be more than 0, load_wait_s and retry_s not less")
