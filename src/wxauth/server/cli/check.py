"""`wxauth check`."""

import asyncio
import sys

import click

from wxauth.server.checks.doctor import check_all
from wxauth.server.checks.result import CheckLevel
from wxauth.server.cli.printing import json_option, show, terminal_language
from wxauth.server.core.logs import configure_logging

_MARKS = {CheckLevel.OK: "ok", CheckLevel.NOTE: "note", CheckLevel.BAD: "BAD"}


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Run the health checks. They cover settings, database, keys, issuer, clocks, and each app at WeChat.

    Nothing is changed; it may run beside the service or before the service starts. Each line is ok, BAD or a note: a
    note reports something that may or may not be intended. Lines are Chinese if the locale is; with --json they are
    English. Exit status 1: something does not work.
    """
    # The results report failures.
    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)
    results = asyncio.run(check_all())
    language = terminal_language()
    show(
        [{"name": it.name, "ok": it.ok, "level": it.level, "message": it.message} for it in results],
        [(_MARKS[it.level], it.name, it.text_in(language)) for it in results],
        as_json=as_json,
    )
    sys.exit(0 if all(it.ok for it in results) else 1)
