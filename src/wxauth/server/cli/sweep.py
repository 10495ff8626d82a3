"""`wxauth sweep`."""

import click

from wxauth.server.cli.printing import json_option, show
from wxauth.server.cli.resources import with_services
from wxauth.server.housekeeping.housekeeping import sweep_now


@click.command()
@json_option
def sweep(as_json: bool) -> None:
    """Delete expired data now.

    Deletes events older than EVENTS_KEPT_DAYS and sessions that ended more than ENDED_SESSIONS_KEPT_DAYS ago, and
    truncates addresses older than ADDRESSES_KEPT_DAYS. The running service does this once a day.
    """
    swept = with_services(sweep_now)
    show(
        {"events": swept.events, "addresses": swept.addresses},
        f"events deleted: {swept.events}, addresses truncated: {swept.addresses}",
        as_json=as_json,
    )
