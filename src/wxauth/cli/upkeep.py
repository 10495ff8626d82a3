"""The commands `wxauth migrate`, `check` and `sweep`, with which an operator maintains the service.

Modules that only one command needs are imported when this command is called, because these imports take a long time.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing

import click

from wxauth.cli.printing import Failed, confirm, echo, json_option, show, yes_option
from wxauth.cli.resources import failures_printed, read_settings, with_services
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.outages import GRANTS
from wxauth.i18n import lazy_gettext as _
from wxauth.settings.settings import DatabaseSettings


@click.command()
@click.option(
    "--to",
    "revision",
    default="head",
    show_default=True,
    help="The revision to migrate to. If you specify an older revision, later revisions are reverted, which "
    "deletes what only they store. Only for `base`, the command asks you to confirm first.",
)
@yes_option
def migrate(revision: str) -> None:
    """Migrate the database schema to this version.

    Replicas can continue to process requests, and several replicas can run this command at once. You can interrupt the
    command and run it again, because each revision is applied completely or not at all. `--to base` erases all data, so
    the command asks you to confirm first.
    """
    from wxauth.core.revisions import is_newer

    if revision == "base":
        confirm(lambda: _("Permanently erase all users and data?"))
    with failures_printed():
        # If the migration has to wait for another program's lock, the log says so.
        configure_logging(level="warning", log_format="console", stream=sys.stderr.buffer)
        url = read_settings(DatabaseSettings).database_url.get_secret_value()
        current_revision, statements = asyncio.run(_migrate(url, revision))
    text = _("schema at {revision}", revision=current_revision or "base")
    if is_newer(current_revision):
        text += _(", which belongs to a newer version of wxauth. The running version can still serve requests")
    echo(text)
    if statements:
        done = "; ".join(statements)
        echo(_("set for the role, because a pooler keeps no settings of connections: {done}", done=done))


async def _migrate(url: str, revision: str) -> tuple[str | None, Sequence[str]]:
    from wxauth.core import migrations

    async with aclosing(Database(url)) as database:
        try:
            current_revision = await migrations.migrate(database, revision=revision)
            return current_revision, await migrations.set_up_role(database)
        except migrations.MigrationForbidden as exc:
            text = _(
                "WXAUTH_DATABASE_URL: the database role isn't allowed to migrate the schema: {why}. {to_do}",
                why=exc,
                to_do=GRANTS,
            )
            raise Failed(text) from None


@click.command()
@json_option
def check() -> None:
    """Run the health checks.

    The checks cover the settings, the database, the keys, the issuer, the clocks, and each app's setup in WeChat. This
    command changes no settings, users or sessions, and you can run it before the service starts or while it runs. Each
    line begins with ok, BAD or note. BAD means that something doesn't work. A note reports something that might not be
    intended. Lines are in Chinese if your locale is Chinese, but always in English with --json. The exit status is 1 if
    a line begins with BAD.
    """
    from wxauth.checks.result import MARKS
    from wxauth.checks.runner import check_all

    # The results themselves report failures, so only critical messages are logged.
    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)
    results = asyncio.run(check_all())
    show(
        [
            {"name": result.name, "ok": result.is_ok, "level": result.level, "message": result.text}
            for result in results
        ],
        [(MARKS[result.level], result.name, result.text) for result in results],
    )
    if not all(result.is_ok for result in results):
        sys.exit(1)


@click.command()
@json_option
def sweep() -> None:
    """Delete expired data now.

    This command deletes events older than EVENTS_KEPT_DAYS days, and sessions that ended more than
    ENDED_SESSIONS_KEPT_DAYS days ago. It also truncates IP addresses older than ADDRESSES_KEPT_DAYS days. The running
    service does the same once a day.
    """
    from wxauth.housekeeping.housekeeping import sweep_now

    # The result does not contain the number of deleted sessions, which the sweep of sessions only logs.
    swept = with_services(sweep_now)
    show(
        {"events": swept.events, "addresses": swept.addresses},
        _("deleted events: {events}, truncated addresses: {n}", events=swept.events, n=swept.addresses),
    )
