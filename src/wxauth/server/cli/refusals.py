"""`wxauth refusals`: list refused logins."""

from datetime import datetime
from functools import partial
from ipaddress import ip_network
from uuid import UUID

import click

from wxauth.server.cli.printing import (
    checked,
    json_option,
    more,
    page_options,
    show,
    table,
    text_option,
    time_option,
    to_the_second,
)
from wxauth.server.cli.resources import with_database
from wxauth.server.core.addresses import IpNetwork
from wxauth.server.login.record_rows import RefusalSearch, list_refusals
from wxauth.server.web.bodies import items_of

_network = checked(partial(ip_network, strict=False), "must be a network or an address, such as 203.0.113.0/24")


@click.command()
@click.option("--request-id", callback=text_option, help="The request id that the phone shows.")
@click.option("--user-id", type=click.UUID, help="Only refusals of this user.")
@click.option("--code", callback=text_option, help="Only refusals with this code, such as account_disabled.")
@click.option("--app-id", callback=text_option, help="Only refusals in this app.")
@click.option("--network", callback=_network, metavar="CIDR", help="Only refusals from this network: 203.0.113.0/24")
@click.option("--since", callback=time_option, metavar="TIME", help="None earlier: 2026-11-27T10:00:00+08:00.")
@click.option("--until", callback=time_option, metavar="TIME", help="Only before this time.")
@page_options
@json_option
def refusals(
    request_id: str | None,
    user_id: UUID | None,
    code: str | None,
    app_id: str | None,
    network: IpNetwork | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    cursor: UUID | None,
    as_json: bool,
) -> None:
    """Print refused logins, the newest first.

    They are kept for 14 days. COUNT is the number of refusals in a line. JSON is that of GET /v1/admin/refusals.
    """
    search = RefusalSearch.model_construct(
        request_id=request_id or None,
        user_id=user_id,
        code=code or None,
        app_id=app_id or None,
        network=network,
        since=since,
        until=until,
        limit=limit,
        cursor=cursor,
    )
    page = with_database(lambda database, _: list_refusals(database, search))
    rows = table(
        page.items,
        "at code app_id user_id network request_id count",
        at=lambda refusal: to_the_second(refusal.at),
        code=lambda it: it.code + ("" if it.wechat_errcode is None else f" ({it.wechat_errcode})"),
    )
    show(items_of(page), rows, *more(page.next_cursor), as_json=as_json)
