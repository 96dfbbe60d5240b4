"""Which results a partition already has: an exact set of its last N ids, fed and asked by whole columns."""

import binascii
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DIGITS = 32
_EMPTY = -1
_NUMBER_BITS = (
    40  # of a table entry; above them lie 23 bits of the id's hash, so that most other ids need no look into the ring
)
_NUMBER = (1 << _NUMBER_BITS) - 1
_SMALLEST = 1 << 12
_REBUILD = 1 << 16  # ids put into a new table at a time

_ODD_NUMBERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93], np.uint64)

# Value of a lower-case hexadecimal digit, 255 for any other byte.
_VALUE = np.full(256, 255, np.uint8)
_VALUE[list(b"0123456789abcdef")] = range(16)


def pack(ids: pa.StringArray) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Ids of 32 lower-case hex digits as 16 bytes each.

    Returns uint64 (n, 2), and which of the n ids have that form; rows of the others mean nothing.
    """
    count = len(ids)
    if not count:
        return np.empty((0, 2), np.uint64), np.empty(0, np.bool_)
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + count + 1]
    text = np.frombuffer(ids.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    regular = np.diff(offsets) == _DIGITS
    if regular.all():
        packed = _unhex(text)
        if packed is not None:
            return packed, regular
    return _pack_some(text, np.diff(offsets), regular)


def _unhex(text: NDArray[np.uint8]) -> NDArray[np.uint64] | None:
    digits = text.tobytes()
    try:
        packed = binascii.unhexlify(digits)
    except binascii.Error:
        return None
    upper_case = binascii.hexlify(packed) != digits
    return None if upper_case else np.frombuffer(packed, np.uint64).reshape(-1, 2)


def _pack_some(
    text: NDArray[np.uint8], lengths: NDArray[np.int32], regular: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The slow road, for columns in which some id has another form."""
    packed = np.zeros((len(lengths), 16), np.uint8)
    digits = _VALUE[text[np.repeat(regular, lengths)]].reshape(-1, _DIGITS)
    packed[regular] = (digits[:, 0::2] << 4) | (digits[:, 1::2] & 15)
    regular[regular] = digits.max(axis=1, initial=0) < 16
    return packed.view(np.uint64), regular


class RecentIds:
    """Remembers at least the last `window` different ids; comparison is of whole ids, never of a hash alone.

    The usual ids (32 lower-case hex digits) lie in a ring as 16 bytes each, found by an open-addressing table of places in that ring:
    50 bytes an id at most, growing with use. Other ids lie in a dictionary with a window of its own. The empty id names nothing and is
    always new.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._ring = np.zeros((0, 2), np.uint64)
        self._added = 0  # ids ever added; the place of number i in the ring is i % window
        self._table = np.full(_SMALLEST, _EMPTY, np.int64)  # number of an id, by slot
        self._used = 0  # slots taken, those of forgotten ids included
        self._odd: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """Ids remembered."""
        return min(self._added, self._window) + len(self._odd)

    def add(self, ids: pa.StringArray) -> NDArray[np.bool_]:
        """Remember ids, and say of each whether it is new: neither remembered nor earlier in `ids`. Shape (n,)."""
        packed, regular = pack(ids)
        new = np.ones(len(ids), np.bool_)
        odd = np.flatnonzero(~regular)
        if odd.size:
            new[odd] = self._add_odd(ids.take(pa.array(odd)).to_pylist())
        if regular.any():
            for part in np.array_split(np.flatnonzero(regular), -(-len(ids) // self._window)):
                new[part] = self._add_packed(packed[part])
        return new

    def _add_odd(self, ids: Sequence[str]) -> list[bool]:
        new = []
        for text in ids:
            new.append(not text or text not in self._odd)
            if text and new[-1]:
                self._odd[text] = None
                if len(self._odd) > self._window:
                    self._odd.popitem(last=False)
        return new

    def _add_packed(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        new = ~self._contains(ids)
        new &= _first_of_its_kind(ids)
        fresh = ids[new]
        self._make_room(len(fresh))
        numbers = np.arange(self._added, self._added + len(fresh))
        self._ring[numbers % self._window] = fresh
        self._added += len(fresh)
        self._insert(fresh, numbers)
        return new

    def _contains(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        mask = len(self._table) - 1
        slots, tags = _home(ids, mask)
        found = np.zeros(len(ids), np.bool_)
        left = np.arange(len(ids))
        while left.size:
            entries = self._table[slots]
            alike = np.flatnonzero(entries >> _NUMBER_BITS == tags)
            if alike.size:
                found[left[alike]] |= self._holds(entries[alike] & _NUMBER, ids[left[alike]])
            go_on = (entries != _EMPTY) & ~found[left]
            left, slots, tags = left[go_on], (slots[go_on] + 1) & mask, tags[go_on]
        return found

    def _holds(self, numbers: NDArray[np.int64], ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether each number's id is the given one, and not forgotten."""
        remembered: NDArray[np.bool_] = numbers >= self._added - self._window
        remembered &= (self._ring[numbers % self._window] == ids).all(axis=1)
        return remembered

    def _insert(self, ids: NDArray[np.uint64], numbers: NDArray[np.int64]) -> None:
        mask = len(self._table) - 1
        slots, tags = _home(ids, mask)
        entries = (tags << _NUMBER_BITS) | numbers
        self._used += len(ids)
        while entries.size:
            free = self._table[slots] == _EMPTY
            self._table[slots[free]] = entries[free]
            lost = self._table[slots] != entries  # taken before, or by another of these
            entries, slots = entries[lost], (slots[lost] + 1) & mask

    def _make_room(self, count: int) -> None:
        """Keep the ring as long as what it holds and the table at most half full; forgotten ids leave the table here."""
        kept = min(self._added, self._window)
        if len(self._ring) < min(self._added + count, self._window):
            longer = min(max(2 * len(self._ring), self._added + count, _SMALLEST), self._window)
            self._ring = np.concatenate([self._ring, np.zeros((longer - len(self._ring), 2), np.uint64)])
        if 2 * (self._used + count) > len(self._table):
            self._table = np.full(max(1 << (3 * (kept + count) - 1).bit_length(), _SMALLEST), _EMPTY, np.int64)
            self._used = 0
            for numbers in np.array_split(np.arange(self._added - kept, self._added), 1 + kept // _REBUILD):
                self._insert(self._ring[numbers % self._window], numbers)


def _home(ids: NDArray[np.uint64], mask: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slot at which the search for an id begins, and its tag (23 bits).

    Ids are digests, but nothing breaks if somebody's are not: it only takes longer.
    """
    mixed = ids[:, 0] * _ODD_NUMBERS[0] ^ ids[:, 1] * _ODD_NUMBERS[1]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _ODD_NUMBERS[2]  # counters as ids differ in few bits: spread those
    slots = (mixed >> np.uint64(20)) & np.uint64(mask)
    return slots.astype(np.int64), (mixed >> np.uint64(41)).astype(np.int64)


def _first_of_its_kind(ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows have no equal row before them."""
    halves = np.sort(ids[:, 0])
    if not (halves[1:] == halves[:-1]).any():
        return np.ones(len(ids), np.bool_)
    first = np.zeros(len(ids), np.bool_)
    first[np.unique(ids, axis=0, return_index=True)[1]] = True
    return first
