"""`wxauth refusals`: list refused logins."""

from datetime import datetime
from uuid import UUID

import click

from wxauth.server.cli.options import more, page_options, text_option, time_option
from wxauth.server.cli.printing import json_option, printable, show
from wxauth.server.cli.resources import with_database
from wxauth.server.refusals.refusals import list_refusals
from wxauth.server.refusals.routes import refusals_answer
from wxauth.server.refusals.rows import RefusalSearch


@click.command()
@click.option("--request-id", callback=text_option, help="The request id that the phone shows.")
@click.option("--user-id", type=click.UUID, help="Only refusals of this user.")
@click.option("--code", callback=text_option, help="Only refusals with this code, such as account_disabled.")
@click.option("--since", callback=time_option, metavar="TIME", help="None earlier: 2026-11-27T10:00:00+08:00.")
@click.option("--until", callback=time_option, metavar="TIME", help="Only before this time.")
@page_options
@json_option
def refusals(
    request_id: str | None,
    user_id: UUID | None,
    code: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    cursor: UUID | None,
    as_json: bool,
) -> None:
    """Print refused logins, the newest first.

    They are kept for 14 days. COUNT is how many a line stands for. JSON is that of GET /v1/admin/refusals.
    """
    search = RefusalSearch(request_id=request_id or None, user_id=user_id, code=code or None, since=since, until=until)
    page = with_database(lambda database, _: list_refusals(database, search, before=cursor, limit=limit))
    rows = [
        (
            refusal.at.isoformat(timespec="seconds"),
            refusal.code + ("" if refusal.wechat_errcode is None else f" ({refusal.wechat_errcode})"),
            printable(refusal.app_id),
            str(refusal.user_id or "-"),
            refusal.network or "-",
            refusal.request_id,
            str(refusal.count),
        )
        for refusal in page.items
    ]
    header = ("AT", "CODE", "APP_ID", "USER_ID", "NETWORK", "REQUEST_ID", "COUNT")
    show(refusals_answer(page), [header, *rows], *more(page.next_cursor), as_json=as_json)
