"""The ledger never calls an offset safe while a record below it is not, whatever the order of completions, give-backs and rebalances."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from streams.ledger import Claim, Ledger

PARTITIONS = st.integers(0, 2)


class LedgerMachine(RuleBasedStateMachine):
    """Model: per partition the offsets taken and whether each is safe. Claims are settled in any order and any portions."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger[int] = Ledger()
        self.unsafe: dict[int, set[int]] = {p: set() for p in range(3)}
        self.next = dict.fromkeys(range(3), 0)
        self.offsets: dict[Claim[int], list[int]] = {}

    @rule(target=claims, partition=PARTITIONS, count=st.integers(1, 5), gap=st.integers(0, 3))
    def take(self, partition: int, count: int, gap: int) -> Claim[int]:
        first = self.next[partition] + gap  # compaction and transaction markers leave gaps
        offsets = list(range(first, first + count))
        self.next[partition] = first + count
        self.unsafe[partition] |= set(offsets)
        claim = self.ledger.take(partition, first + count, count)
        self.offsets[claim] = offsets
        return claim

    @rule(claim=claims, count=st.integers(1, 5))
    def settle(self, claim: Claim[int], count: int) -> None:
        open_offsets = self.offsets[claim][:count]
        if open_offsets:
            self.offsets[claim] = self.offsets[claim][count:]
            self.unsafe[claim.partition] -= set(open_offsets)
            self.ledger.settle(claim, len(open_offsets))

    @rule(partition=PARTITIONS, keep=st.integers(0, 3))
    def give_back_the_newest(self, partition: int, keep: int) -> None:
        mine = [claim for claim in self.offsets if claim.partition == partition and self.offsets[claim]]
        if not mine:
            return
        newest = mine[-1]
        taken = self.offsets[newest]
        if taken[-1] + 1 != newest.next or keep >= len(taken):
            return
        kept, given = taken[:keep], taken[keep:]
        whole = len(taken) == newest.left and keep == 0
        self.ledger.give_back(newest, len(given), None if whole else given[0])
        self.unsafe[partition] -= set(given)
        self.offsets[newest] = kept
        self.next[partition] = given[0]

    @rule()
    def rebalance(self) -> None:
        self.ledger.forget()
        self.unsafe = {p: set() for p in range(3)}
        self.next = {p: offset + 10 for p, offset in self.next.items()}
        for claim in self.offsets:
            self.offsets[claim] = []

    @rule(claim=consumes(claims))
    def late_report_of_a_forgotten_claim(self, claim: Claim[int]) -> None:
        if not self.offsets[claim]:
            self.ledger.settle(claim, 1)

    @invariant()
    def never_past_an_unsafe_record(self) -> None:
        for partition, offset in self.ledger.safe.items():
            assert all(offset <= unsafe for unsafe in self.unsafe[partition]), (partition, offset, self.unsafe)

    @invariant()
    def idle_means_nothing_unsafe(self) -> None:
        if self.ledger.idle:
            assert not any(self.unsafe.values())


LedgerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase


def test_safe_offset_follows_completions_out_of_order() -> None:
    ledger: Ledger[str] = Ledger()
    first, second, third = (ledger.take("p", end, 10) for end in (10, 20, 30))
    ledger.settle(second, 10)
    ledger.settle(third, 4)
    assert ledger.safe == {}
    ledger.settle(first, 10)
    assert ledger.safe == {"p": 20}
    ledger.settle(third, 6)
    assert ledger.safe == {"p": 30}
    assert ledger.idle
