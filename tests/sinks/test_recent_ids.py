"""The window of ids is exact: it agrees with a plain dictionary, whatever the ids look like."""

from collections import OrderedDict

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.recent_ids import RecentIds, pack

HEX = st.integers(0, 30).map(lambda number: f"{number * 0x0123456789ABCDEF0123456789ABCDE:032x}")
ODD = st.sampled_from(["", "x", "AB" * 16, "zz" * 16, "é" * 16, "0" * 31, "0" * 33])


class Model:
    """What is promised, for one form of ids."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.ids: OrderedDict[str, None] = OrderedDict()

    def add(self, one: str) -> bool:
        new = one not in self.ids
        if new:
            self.ids[one] = None
            if len(self.ids) > self.window:
                self.ids.popitem(last=False)
        return new


@settings(deadline=None)
@given(batches=st.lists(st.lists(HEX | ODD, max_size=12), max_size=12))
def test_nothing_is_new_twice_within_the_window(batches: list[list[str]]) -> None:
    recent, model = RecentIds(1000), Model(1000)
    for batch in batches:
        assert recent.add(pa.array(batch, pa.string())).tolist() == [not one or model.add(one) for one in batch]


@settings(deadline=None)
@given(ids=st.lists(HEX, max_size=120), window=st.integers(1, 40))
def test_the_window_holds_exactly_the_last_ids(ids: list[str], window: int) -> None:
    recent, model = RecentIds(window), Model(window)
    for one in ids:
        assert recent.add(pa.array([one])).tolist() == [model.add(one)]
    assert len(recent) == len(model.ids)


def test_a_slice_of_a_column_is_read_as_such() -> None:
    column = pa.array(["zz", *(f"{number:032x}" for number in range(10)), "zz"])
    packed, regular = pack(column[1:-1])
    assert regular.all()
    assert [row.tobytes().hex() for row in packed] == column[1:-1].to_pylist()


def test_many_ids_and_forgetting() -> None:
    recent = RecentIds(10_000)
    for start in range(0, 60_000, 3_000):
        ids = pa.array([f"{number:032x}" for number in range(start, start + 3_000)])
        assert recent.add(ids).all()
        assert not recent.add(ids).any()
    assert recent.add(pa.array([f"{0:032x}"])).all()
    assert len(recent) == 10_000
