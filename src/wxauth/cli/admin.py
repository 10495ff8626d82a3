"""The command `wxauth admin`, for the administrators' console."""

from datetime import timedelta
from uuid import UUID

import click

from wxauth.cli.printing import json_option, show
from wxauth.cli.resources import read_settings, with_database
from wxauth.console.links import CONSOLE_PATH, LINK_LIFETIME, make_link
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.settings import ConsoleSettings


@click.group()
def admin() -> None:
    """Open the admin console."""


@admin.command()
@click.argument("user_id", type=click.UUID, required=False)
@json_option
def link_command(user_id: UUID | None) -> None:
    """Print a URL that an administrator or support staff can use to log in to the console.

    Use the URL if no one can scan a QR code yet, or while WeChat is unavailable. The URL works only once and expires
    after 10 minutes. Without USER_ID, the URL logs in the only administrator. Keep the URL secret, because anyone who
    opens it is logged in as that user.
    """
    settings = read_settings(ConsoleSettings)
    link = with_database(lambda database, now: make_link(database, user_id, now=now))
    url = f"{settings.issuer}{CONSOLE_PATH}#link={link.secret}"
    minutes = LINK_LIFETIME // timedelta(minutes=1)
    notes = [_("The URL works only once and expires after {minutes} minutes.", minutes=minutes)]
    if not settings.admin_page:
        notes.append(_("The console must be enabled with WXAUTH_ADMIN_PAGE=true."))
    expires_at = link.expires_at.isoformat(timespec="seconds")
    show({"url": url, "user_id": link.user_id, "expires_at": expires_at}, url, *notes)
