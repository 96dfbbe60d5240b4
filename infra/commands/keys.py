"""`sightstream keys`: who may call the gateway."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from infra.command_values import SPAN
from infra.settings import Settings
from schemas.identity import Scope

if TYPE_CHECKING:
    from infra.key_ledger import KeyLedger
    from infra.keys import NewKey
    from schemas.control import ApiKey

_LIFETIME = "Ends after so long, such as 90d. Default: never."


@click.group("keys")
def command() -> None:
    """Hand out, list, rotate or revoke API keys of the gateway."""


@command.command()
@click.option("--tenant", default="default", show_default=True, help="Whose key it is: what it sees and what it makes.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    default=("submit", "read"),
    show_default=True,
    help="What it may do. Repeatable.",
)
@click.option("--name", default="", help="A word for people: who uses it, and for what.")
@click.option("--expires-in", type=SPAN, help=_LIFETIME)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def create(
    settings: Settings, tenant: str, scopes: tuple[str, ...], name: str, expires_in: timedelta | None, as_json: bool
) -> None:
    """Make a key. Its text is printed once, on stdout, and is nowhere else."""
    now = datetime.now(UTC)
    with _ledger(settings) as ledger:
        made = ledger.create(tenant, scopes, name, now, now + expires_in if expires_in else None)
    _show(made, as_json)


@command.command("list")
@click.option("--tenant", help="Only of this tenant.")
@click.option("--all", "everything", is_flag=True, help="Also those that count no more.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_(settings: Settings, tenant: str | None, everything: bool, as_json: bool) -> None:
    """List keys: id, tenant, scopes, name, age, end. Never a secret, which nobody has."""
    from infra.key_ring import state_of

    now = datetime.now(UTC)
    with _ledger(settings) as ledger:
        keys = ledger.read().all()
    for key in keys:
        state = state_of(key, now)
        if (tenant is None or key.tenant == tenant) and (everything or state == "live"):
            click.echo(json.dumps(_fields(key, now)) if as_json else _line(key, state))


@command.command()
@click.argument("key_id", metavar="ID")
@click.pass_obj
def revoke(settings: Settings, key_id: str) -> None:
    """End a key now: every gateway refuses it within a second."""
    with _ledger(settings) as ledger:
        key = ledger.revoke(key_id, datetime.now(UTC))
    click.echo(f"{key.id} of {key.tenant} is revoked", err=True)


@command.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap",
    type=SPAN,
    default="24h",
    show_default=True,
    help="For how long the old key still counts: time to swap.",
)
@click.option("--expires-in", type=SPAN, help=_LIFETIME)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def rotate(settings: Settings, key_id: str, overlap: timedelta, expires_in: timedelta | None, as_json: bool) -> None:
    """Make a new key like an old one, which counts for a while longer."""
    with _ledger(settings) as ledger:
        made, old = ledger.rotate(key_id, datetime.now(UTC), overlap, expires_in)
    _show(made, as_json)
    click.echo(f"{old.id} counts until {_moment(old.expires_at)}", err=True)


@contextmanager
def _ledger(settings: Settings) -> Iterator["KeyLedger"]:
    from infra.connections import check_connection
    from infra.key_ledger import KeyLedger
    from infra.wiring import open_publisher

    check_connection(settings.connection)
    with open_publisher(settings) as publisher:
        yield KeyLedger(settings.connection, publisher, f"{settings.kafka.group}.keys")


def _show(made: "NewKey", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"key": made.text, **_fields(made.record, made.record.created_at)}))
        return
    click.echo(made.text)
    click.echo(f"id {made.record.id}; keep the key: it is shown this once", err=True)


def _fields(key: "ApiKey", now: datetime) -> dict[str, object]:
    from infra.key_ring import state_of

    shown = {name: value for name, value in asdict(key).items() if name != "secret_sha256"}
    moments = {name: value and _moment(value) for name, value in shown.items() if name.endswith("_at")}
    return {**shown, **moments, "scopes": list(key.scopes), "state": state_of(key, now)}


def _line(key: "ApiKey", state: str) -> str:
    ends = f"until {_moment(key.expires_at)}" if key.expires_at else "no end"
    parts = (key.id, key.tenant, ",".join(key.scopes), state, f"since {_moment(key.created_at)}", ends, key.name)
    return "  ".join(parts).rstrip()


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")
