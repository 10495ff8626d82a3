"""`wxauth sweep`: forget now what is to be forgotten."""

import click

from wxauth.server.cli.asking import json_option, with_services


@click.command()
@json_option
def sweep(as_json: bool) -> None:
    """Forget now what is older than EVENTS_KEPT_DAYS and ADDRESSES_KEPT_DAYS, and what the service forgets by itself.

    The running service does it once a day.
    """
    from pydantic_core import to_json

    from wxauth.server.housekeeping.housekeeping import sweep_now

    swept = with_services(sweep_now)
    if as_json:
        click.echo(to_json({"events": swept.events, "addresses": swept.addresses}))
    else:
        click.echo(f"events erased: {swept.events}, addresses shortened: {swept.addresses}")
