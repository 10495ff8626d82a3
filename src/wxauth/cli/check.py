"""`wxauth check`."""

import sys

import click

from wxauth.cli.asking import json_option, print_table, terminal_language


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Say what is wrong and what to do: settings, database, keys, issuer, clocks, and each app at WeChat.

    Changes nothing, and may be run beside the service or before it starts. A line is ok, BAD, or a note where it
    depends on what is meant; in Chinese where the locale is, by --json in English. Exit status 1: something does
    not work.
    """
    import asyncio
    import json

    from wxauth.checks import Level, check_all
    from wxauth.core.logs import configure_logging

    configure_logging(level="critical", log_format="console", stream=sys.stderr.buffer)  # the lines say it all
    results = asyncio.run(check_all())
    if as_json:
        rows = [{"name": it.name, "ok": it.ok, "level": it.level, "message": it.message} for it in results]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        marks = {Level.OK: "ok", Level.NOTE: "note", Level.BAD: "BAD"}
        language = terminal_language()
        print_table((marks[it.level], it.name, it.said(language)) for it in results)
    sys.exit(0 if all(it.ok for it in results) else 1)
