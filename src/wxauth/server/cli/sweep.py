"""`wxauth sweep`."""

import click

from wxauth.server.cli.asking import with_services
from wxauth.server.cli.printing import json_option, show
from wxauth.server.housekeeping.housekeeping import sweep_now


@click.command()
@json_option
def sweep(as_json: bool) -> None:
    """Delete expired data now.

    Deletes what is older than EVENTS_KEPT_DAYS and ADDRESSES_KEPT_DAYS, and ended sessions. The running service does
    this once a day.
    """
    swept = with_services(sweep_now)
    show(
        {"events": swept.events, "addresses": swept.addresses},
        f"events erased: {swept.events}, addresses shortened: {swept.addresses}",
        as_json=as_json,
    )
