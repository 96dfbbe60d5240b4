"""What must stand in the environment for torch; imports nothing."""

import os


def calm_threads() -> None:
    """Let torch's threads sleep while they wait for each other, unless the environment says otherwise.

    By default (GNU OpenMP) they spin. Beside decoders, whose cores they then take, that was measured to cost three quarters of the
    throughput on two cores. No effect once torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def fix_workspaces() -> None:
    """Let cuBLAS give the same bits each time. It reads this when it is first used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
