"""`wxauth users import` and `export`."""

import os
import stat
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import IO, Final

import click

from wxauth.errors import Title
from wxauth.server.cli.printing import Failed, json_option, printable, show, terminal_language
from wxauth.server.cli.resources import with_database, with_services
from wxauth.server.moving.batch import Options
from wxauth.server.moving.exporting import export_users
from wxauth.server.moving.faults import Fault
from wxauth.server.moving.files import BadHeader, CsvLines, json_lines
from wxauth.server.moving.importing import Counts, ImportRefusal, import_users

_COUNTS_IN_CHINESE: Final = {
    "lines": "行数",
    "created": "新建",
    "updated": "更新",
    "unchanged": "不变",
    "refused": "拒绝",
}


_JOINED: Final = Title(
    "lines joined to a user by external_id alone: {:,}. Is each of them the same person? If two tables number their"
    " rows separately, give their ids a prefix",
    "仅凭 external_id 归入已有用户：{:,} 行。各行是否确为同一个人？如果两张表各自编号，请为 ID 加上前缀",
)


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--csv", "is_csv", is_flag=True, help="FILE is CSV. Not needed if its name ends in .csv.")
@click.option("--dry-run", is_flag=True, help="Check each line and report the result, but store nothing.")
@click.option("--overwrite", is_flag=True, help="Replace stored names, pictures and numbers with those of the file.")
@click.option("--roles", is_flag=True, help="Change the roles of users who exist already.")
@click.option("--status", is_flag=True, help="Ban and unban users who exist already.")
@click.option("--attributes", is_flag=True, help="Change the attributes of users who exist already, as a merge patch.")
@click.option("--allow-admin", is_flag=True, help="Accept lines with the role admin, or that unban an administrator.")
@click.option("--restore", is_flag=True, help="Accept lines whose user_id is that of an erased user.")
@click.option("--join", is_flag=True, help="Accept lines that contradict the user whom only their external_id names.")
@click.option("--quiet-events", is_flag=True, help="Write no events of what the file adds.")
@json_option
def import_command(
    file: IO[bytes],
    is_csv: bool,
    dry_run: bool,
    overwrite: bool,
    roles: bool,
    status: bool,
    attributes: bool,
    allow_admin: bool,
    restore: bool,
    join: bool,
    quiet_events: bool,
    as_json: bool,
) -> None:
    """Import users from FILE (-: standard input), one identity a line, as JSON or CSV.

    Each line needs app_id and openid; the first line of CSV has the names of the fields. It is safe to run again.
    Refusals are printed in Chinese if the locale is. Exit status 1 if a line was refused.
    """
    options = Options(
        overwrite=overwrite,
        takes_roles=roles,
        takes_status=status,
        takes_attributes=attributes,
        allow_admin=allow_admin,
        restore=restore,
        joins=join,
        quiet_events=quiet_events,
        dry_run=dry_run,
    )
    is_watched = sys.stderr.isatty()
    clear = "\r\x1b[K" if is_watched else ""
    is_chinese = terminal_language() == "zh"
    cost: Counter[Fault] = Counter()

    def fault_text(fault: Fault) -> str:
        return f"{fault.field}: {getattr(fault.wanted, terminal_language())}"

    def refuse(refusal: ImportRefusal) -> None:
        cost.update(refusal.faults)
        line = f"第 {refusal.number} 行" if is_chinese else f"line {refusal.number}"
        click.echo(f"{clear}{line}: {'; '.join(map(fault_text, refusal.faults))}", err=True)

    def progress(counts: Counts) -> None:
        if is_watched:
            click.echo(f"{clear}{counts.lines:,} {'行' if is_chinese else 'lines'}", err=True, nl=False)

    try:
        lines = CsvLines(file) if is_csv or str(file.name).lower().endswith(".csv") else json_lines(file)
    except BadHeader as exc:
        raise Failed(f"{'第 1 行' if is_chinese else 'line 1'}: {fault_text(exc.fault)}") from None
    counts = with_services(lambda services: import_users(services, lines, options, refuse=refuse, progress=progress))
    click.echo(clear, err=True, nl=False)
    if counts.joined:
        click.echo(getattr(_JOINED, terminal_language()).format(counts.joined), err=True)
    for fault, number in cost.most_common():
        click.echo(
            f"{number:,} {'行' if is_chinese else 'line' if number == 1 else 'lines'}: {fault_text(fault)}", err=True
        )
    if isinstance(lines, CsvLines) and lines.unknown:
        names = ", ".join(map(printable, lines.unknown))
        click.echo(f"{'忽略的列' if is_chinese else 'columns ignored'}: {names}", err=True)
    numbers = asdict(counts)
    names_of_counts = _COUNTS_IN_CHINESE if is_chinese else {name: name for name in _COUNTS_IN_CHINESE}
    text = ", ".join(f"{shown}: {numbers[name]}" for name, shown in names_of_counts.items())
    show(numbers, text, as_json=as_json)
    if counts.refused:
        sys.exit(1)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("-"))
def export_command(file: Path) -> None:
    """Export all users to FILE (- or no FILE: standard output), one identity a line of JSON.

    The file is one consistent snapshot. Only its owner can read it: it holds names and numbers.
    """
    if str(file) == "-":
        with_database(lambda database, _: export_users(database, sys.stdout.buffer.write))
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # a device such as /dev/null keeps its permissions
            os.fchmod(descriptor, 0o600)
    except OSError as exc:
        raise click.UsageError(f"{file}: {exc.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as opened:
            number = with_database(lambda database, _: export_users(database, opened.write))
    except OSError as exc:
        raise Failed(f"{file}: {exc.strerror}") from None
    click.echo(f"{number} identities", err=True)
