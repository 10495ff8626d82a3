"""`wxauth check`."""

import sys

import click

from wxauth.server.cli.asking import json_option, print_table, terminal_language


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Say what is wrong and what to do: settings, database, keys, issuer, clocks, and each app at WeChat.

    It changes nothing, and may be run beside the service or before the service starts. Each line is ok, BAD or a note.
    A note tells something that may be as you want it, or may not. The lines are Chinese if the locale is; with --json
    they are English. Exit status 1: something does not work.
    """
    import asyncio
    import json

    from wxauth.server.checks import Level, check_all
    from wxauth.server.core.logs import configure_logging

    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)  # the lines tell what fails
    results = asyncio.run(check_all())
    if as_json:
        rows = [{"name": it.name, "ok": it.ok, "level": it.level, "message": it.message} for it in results]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        marks = {Level.OK: "ok", Level.NOTE: "note", Level.BAD: "BAD"}
        language = terminal_language()
        print_table((marks[it.level], it.name, it.said(language)) for it in results)
    sys.exit(0 if all(it.ok for it in results) else 1)
