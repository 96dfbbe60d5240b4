"""The knobs of the result store, apart from it so that reading settings loads no database."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePolicy:
    """Where results are kept for reading, how long, and how patient readers are.

    `database_url`: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`; empty: `store.db` in `state_dir`. `migrate`: `sink store`
    brings the database's schema up to date when it starts. `keep_days`: images are forgotten so long after the last record about them
    (0: never), and that they were known after `remember_days` more. `catch_up_s`: how long a reader waits for the store to reach the log's
    end before it calls an image unknown. `records` is the most that one transaction takes; `linger_s`: how long the broker may
    gather for it, and so how much later the store knows. `connections`: reads at once in a process.
    """

    database_url: str = ""
    migrate: bool = True
    keep_days: float = 30.0
    remember_days: float = 90.0
    catch_up_s: float = 2.0
    records: int = 5_000
    linger_s: float = 0.05
    sweep_s: float = 60.0
    connections: int = 4
    timeout_s: float = 10.0
