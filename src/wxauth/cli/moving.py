"""`wxauth users import` and `export`: moving in, and out again."""

import os
import stat
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from wxauth.cli.asking import Failed, json_option, with_database, with_services

if TYPE_CHECKING:
    from wxauth.moving.importing import Counts, Refusal


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Say what would become of each line, and store nothing.")
@click.option("--overwrite", is_flag=True, help="Let names, pictures and numbers of the file win over those there.")
@click.option("--roles", is_flag=True, help="Let the file change the roles of users who are there.")
@click.option("--status", is_flag=True, help="Let the file ban and unban users who are there.")
@click.option("--allow-admin", is_flag=True, help="Take lines with the role admin.")
@click.option("--restore", is_flag=True, help="Take lines whose user_id is that of an erased user.")
@click.option("--quiet-events", is_flag=True, help="Write no events of new users, identities and names.")
@json_option
def import_users(
    file: IO[bytes],
    dry_run: bool,
    overwrite: bool,
    roles: bool,
    status: bool,
    allow_admin: bool,
    restore: bool,
    quiet_events: bool,
    as_json: bool,
) -> None:
    """Import users from FILE (-: standard input), one identity a line of JSON.

    Each line needs app_id and openid. It is safe to run again. Exit status 1 if a line was refused.
    """
    from dataclasses import asdict

    from pydantic_core import to_json

    from wxauth.moving.importing import Options, import_users
    from wxauth.moving.lines import numbered_lines

    options = Options(
        overwrite=overwrite,
        takes_roles=roles,
        takes_status=status,
        allow_admin=allow_admin,
        restore=restore,
        quiet_events=quiet_events,
        dry_run=dry_run,
    )
    is_watched = sys.stderr.isatty()

    def refuse(refusal: "Refusal") -> None:
        clear = "\r\x1b[K" if is_watched else ""
        click.echo(f"{clear}line {refusal.number}: {refusal.fault.field}: {refusal.fault.message}", err=True)

    def progress(counts: "Counts") -> None:
        if is_watched:
            click.echo(f"\r\x1b[K{counts.lines:,} lines", err=True, nl=False)

    counts = with_services(
        lambda services: import_users(services, numbered_lines(file), options, refuse=refuse, progress=progress)
    )
    if is_watched:
        click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        click.echo(to_json(asdict(counts)))
    else:
        click.echo(", ".join(f"{name}: {number}" for name, number in asdict(counts).items()))
    if counts.refused:
        sys.exit(1)


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("-"))
def export_users(file: Path) -> None:
    """Write all users to FILE (- or no FILE: standard output), one identity a line of JSON.

    The file has the state of one moment, whatever changes meanwhile. Only you can read it: it holds names and numbers.
    """
    from wxauth.moving.exporting import export_users

    if str(file) == "-":
        with_database(lambda database, _: export_users(database, sys.stdout.buffer.write))
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # /dev/null stays everybody's
            os.fchmod(descriptor, 0o600)
    except OSError as exc:
        raise click.UsageError(f"{file}: {exc.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as opened:
            number = with_database(lambda database, _: export_users(database, opened.write))
    except OSError as exc:
        raise Failed(f"{file}: {exc.strerror}") from None
    click.echo(f"{number} identities", err=True)
