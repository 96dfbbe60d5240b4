"""Who calls: scopes and names of tenants."""

import pytest

from schemas.identity import OPEN, Principal, Scope, is_tenant


def test_an_admin_may_do_everything_and_nobody_else_more_than_was_said() -> None:
    admin = Principal(tenant="a", subject="s", scopes=frozenset({Scope.ADMIN}))
    reader = Principal(tenant="a", subject="s", scopes=frozenset({Scope.READ}))
    assert [scope for scope in Scope if not admin.may(scope)] == []
    assert [scope for scope in Scope if reader.may(scope)] == [Scope.READ]
    assert OPEN.may(Scope.DELETE)


@pytest.mark.parametrize("name", ["default", "acme", "A-1_b", "0", "x" * 64])
def test_names_of_tenants(name: str) -> None:
    assert is_tenant(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a.b", "-a", "_a", "x" * 65, "a\n", "a b", "ä", "a\0"])
def test_names_that_could_mean_something_to_a_path_are_none(name: str) -> None:
    assert not is_tenant(name)
