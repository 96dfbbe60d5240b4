"""Which references of a topic a replay takes, and what they become: pure functions of what lies on the log."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.arrow import IMAGE_REF
from schemas.records import Lane
from schemas.replays import ReplayManifest, ReplayRange

_MOST_BYTES = 900_000  # a reference that is larger would not fit on the lane again, with what a replay adds to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is taken of a topic. None and empty do not restrict; of `attributes` a reference must have every one."""

    tenant: str | None = None
    batch_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: ReplayManifest) -> "Selection":
        """What a manifest was made with."""
        return cls(tenant=manifest.tenant, batch_id=manifest.batch_id, attributes=manifest.filters)

    def mask(self, refs: pa.RecordBatch) -> NDArray[np.bool_]:
        """Which rows are taken: never what another replay sent, nor what names no image."""
        wanted = [
            pc.is_null(refs.column("replay_id")),
            pc.not_equal(refs.column("id"), ""),
            pc.not_equal(refs.column("uri"), ""),
        ]
        if self.tenant is not None:
            wanted.append(pc.equal(refs.column("tenant"), self.tenant))
        if self.batch_id is not None:
            wanted.append(pc.equal(refs.column("batch_id"), self.batch_id))
        for name, value in self.attributes.items():
            found = pc.map_lookup(refs.column("attributes"), pa.scalar(name), "last")
            wanted.append(pc.equal(found, value))
        taken: NDArray[np.bool_] = np.ones(refs.num_rows, np.bool_)
        for condition in wanted:
            taken &= condition.fill_null(fill_value=False).to_numpy(zero_copy_only=False)
        return taken


def fits(value: bytes) -> bool:
    """Whether a reference is small enough to be sent again."""
    return len(value) <= _MOST_BYTES


def again(refs: pa.RecordBatch, manifest: ReplayManifest, now: datetime) -> pa.RecordBatch:
    """The references as the replay sends them: the same images, keys, parameters and attributes, asked of the manifest's model.

    A deadline was about the first time and is dropped. They are submitted `now`, so that latencies are those of the replay.
    """
    changed = {
        "lane": Lane.BULK.value,
        "model": manifest.model,
        "submitted_at": now.replace(tzinfo=None),
        "deadline": None,
        "replay_id": manifest.id,
        "into": manifest.into,
        "silent": not manifest.notify,
    }
    columns = [
        pa.repeat(pa.scalar(changed[each.name], each.type), refs.num_rows)
        if each.name in changed
        else refs.column(each.name)
        for each in IMAGE_REF
    ]
    return pa.RecordBatch.from_arrays(columns, schema=IMAGE_REF)


def link(chain: str, offset: int, key: bytes | None, value: bytes) -> str:
    """The chain after one more reference: SHA-256 (hex) over the chain so far and the reference, byte by byte."""
    digest = hashlib.sha256(f"{chain}\n{offset}\n{-1 if key is None else len(key)}\n".encode())
    digest.update(key or b"")
    digest.update(value)
    return digest.hexdigest()


def digest_of(ranges: Sequence[ReplayRange]) -> str:
    """A manifest's digest."""
    lines = "".join(f"{one.partition} {one.references} {one.digest}\n" for one in ranges if one.references)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
