"""`sightstream webhooks`: what receivers need to know."""

import click

from infra.settings import Settings


@click.group("webhooks")
def command() -> None:
    """Webhooks: secrets of receivers."""


@command.command("secret")
@click.option("--tenant", default="default", show_default=True, help="Whose webhooks are to be verified.")
@click.pass_obj
def secret(settings: Settings, tenant: str) -> None:
    """Print the signing secret of a tenant (Standard Webhooks), for whoever receives its webhooks."""
    from schemas.errors import ConfigurationError
    from schemas.identity import is_tenant
    from sinks.webhook_signature import secret_of

    if not is_tenant(tenant):
        raise click.BadParameter("1 to 64 letters, digits, _ and -", param_hint="--tenant")
    master = settings.webhooks.secret
    if master is None:
        raise ConfigurationError(
            "webhooks.secret is not set (environment SIGHTSTREAM_WEBHOOKS_SECRET): callbacks are refused without it"
        )
    click.echo(secret_of(master, tenant))
