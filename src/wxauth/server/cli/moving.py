"""`wxauth users import` and `export`."""

import os
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import IO, Any, Final, get_args
from zoneinfo import ZoneInfo

import click

from wxauth.errors import StorageUnavailable, Title
from wxauth.server.apps.registry import Apps
from wxauth.server.cli.printing import (
    Command,
    Failed,
    checked,
    json_option,
    printable,
    show,
    text_option,
)
from wxauth.server.cli.resources import with_database, with_services
from wxauth.server.core.outages import trouble_of
from wxauth.server.core.services import Services
from wxauth.server.core.terminal import say, terminal_language
from wxauth.server.moving.batch import Options
from wxauth.server.moving.files import BadHeader, CsvLines, Encoding, Form, export_users, is_field, json_lines
from wxauth.server.moving.importing import Counts, ImportRefusal, import_users
from wxauth.server.moving.lines import Fault, Line

_COUNTS: Final = (
    Title("lines", "行数"),
    Title("created", "新建"),
    Title("updated", "更新"),
    Title("unchanged", "不变"),
    Title("refused", "拒绝"),
    Title("blank", "空行"),
)
"""The counts that are printed. The English is the field's name."""

_MOST_CELLS: Final = 30
_LONGEST_CELL: Final = 40

_JOINED: Final = Title(
    "lines joined to a user by external_id alone: {:,}. Is each of them the same person? If two tables number their"
    " rows separately, give their ids a prefix",
    "仅凭 external_id 归入已有用户：{:,} 行。各行是否确为同一个人？如果两张表各自编号，请为 ID 加上前缀",
)
_LINE: Final = Title("line {}: {}", "第 {} 行: {}")
_SKIPPED: Final = Title("skipped: {}", "已略去：{}")
_OTHER_LINES: Final = Title("{} (line {})", "{}（第 {} 行）")
_ONE_LINE: Final = Title("{:,} line: {}", "{:,} 行: {}")
_SOME_LINES: Final = Title("{:,} lines: {}", "{:,} 行: {}")
_HEADER_READ: Final = Title("; it is: {}", "；读到的是: {}")
_COLUMNS_IGNORED: Final = Title("columns ignored: {}", "忽略的列: {}")
_RUN_AGAIN: Final = Title(
    "correct the refused lines, and run the command again with the whole file: imported lines do not change",
    "请修正被拒绝的行，再用完整的文件运行一次：已导入的行不会改变",
)
_STORED_NOTHING: Final = Title("nothing was stored: run it without --dry-run", "未存储任何内容：请去掉 --dry-run 运行")
_GIVEN_UP: Final = Title(
    "{:,} lines are done: run the same command again, imported lines do not change",
    "已完成 {:,} 行：请重新运行同一命令，已导入的行不会改变",
)
_NO_ROOM: Final = Title("the temporary folder (TMPDIR) has no room: {}", "临时目录（TMPDIR）空间不足：{}")
_WAITING: Final = Title("{}; trying again in {:.0f} s", "{}；{:.0f} 秒后重试")

_FLAGS: Final = {
    "--dry-run": ("dry_run", "Check each line and report the result, but store nothing."),
    "--overwrite": ("overwrite", "Replace stored names, pictures and numbers with those of the file."),
    "--roles": ("takes_roles", "Change the roles of users who exist already."),
    "--status": ("takes_status", "Ban and unban users who exist already."),
    "--attributes": ("takes_attributes", "Change the attributes of users who exist already, as a merge patch."),
    "--allow-admin": ("allow_admin", "Accept lines with the role admin, or that unban an administrator."),
    "--restore": ("restore", "Accept lines whose user_id is that of an erased user."),
    "--join": ("joins", "Accept lines that contradict the user whom only their external_id names."),
    "--skip-bad-fields": ("skips_bad_fields", "Import lines without a bad name, picture, number or time."),
    "--quiet-events": ("quiet_events", "Write no events of what the file adds."),
}
"""The options that are a field of `Options`, each with its name and help."""


def _fields(values: Sequence[str]) -> dict[str, str]:
    """Our names by those of the file."""
    fields: dict[str, str] = {}
    for given in values:
        name, _, theirs = given.partition("=")
        if not is_field(name) or not theirs:
            raise ValueError("must be FIELD=COLUMN, with a FIELD of docs/moving-in.md")
        if theirs in fields or name in fields.values():
            raise ValueError("must have each FIELD and each COLUMN once")
        fields[theirs] = name
    return fields


_time_zone = checked(ZoneInfo, "must be a name such as Asia/Shanghai. 必须是 Asia/Shanghai 这样的时区名。")


def _flags(command: Command) -> Command:
    for option, (name, text) in reversed(_FLAGS.items()):
        command = click.option(option, name, is_flag=True, help=text)(command)
    return command


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--csv", "is_csv", is_flag=True, help="FILE is CSV. Not needed if its name ends in .csv.")
@click.option("--tsv", "is_tsv", is_flag=True, help="FILE is CSV with tabs. Not needed if its name ends in .tsv.")
@click.option(
    "--encoding", type=click.Choice(get_args(Encoding)), default="utf-8", show_default=True, help="How FILE is encoded."
)
@click.option("--app-id", callback=text_option, help="The app of the lines that name none.")
@click.option(
    "--map",
    "fields",
    metavar="FIELD=COLUMN",
    multiple=True,
    callback=checked(_fields),
    help="What FILE calls a field, such as openid=weixin_openid; may be repeated.",
)
@click.option("--time-zone", callback=_time_zone, help="That of the times without one, such as Asia/Shanghai.")
@_flags
@json_option
def import_command(
    file: IO[bytes],
    is_csv: bool,
    is_tsv: bool,
    encoding: Encoding,
    app_id: str | None,
    fields: dict[str, str],
    as_json: bool,
    **flags: Any,
) -> None:
    """Import users from FILE (-: standard input), one identity a line, as JSON or CSV.

    Each line needs app_id and openid; the first line of CSV has the names of the fields. It is safe to run again. If
    the connection to the database is lost, it is tried again for ten minutes. Refusals are printed in Chinese if the
    locale is. Exit status 1 if a line was refused.
    """
    options = Options(**flags)
    is_watched = sys.stderr.isatty()
    clear = "\r\x1b[K" if is_watched else ""
    language = terminal_language()
    cost: Counter[Fault] = Counter()
    done = Counts()
    shown = _Progress(file)

    def in_language(text: Title, *values: object) -> str:
        chosen = str(getattr(text, language))
        return chosen.format(*values) if values else chosen  # what is wrong with a field may contain braces

    def fault_text(fault: Fault) -> str:
        return f"{fault.field}: {in_language(fault.wanted)}"

    def refuse(refusal: ImportRefusal) -> None:
        cost.update(refusal.faults)
        faults = "; ".join(map(fault_text, refusal.faults))
        if refusal.others:
            faults = in_language(_OTHER_LINES, faults, ", ".join(map(str, refusal.others)))
        if refusal.is_of_fields:
            faults = in_language(_SKIPPED, faults)
        click.echo(f"{clear}{in_language(_LINE, refusal.number, faults)}", err=True)

    def progress(counts: Counts) -> None:
        nonlocal done
        done = counts
        if is_watched:
            click.echo(f"{clear}{in_language(shown.after(counts.lines))}", err=True, nl=False)

    def waiting(exc: StorageUnavailable, seconds: float) -> None:
        click.echo(f"{clear}{in_language(_WAITING, in_language(trouble_of(exc)), seconds)}", err=True)

    async def run(services: Services) -> Counts:
        if app_id:
            services[Apps].entry(app_id)
        progress(done)
        try:
            return await import_users(services, lines, options, refuse=refuse, progress=progress, waiting=waiting)
        except StorageUnavailable:
            click.echo(f"{clear}{in_language(_GIVEN_UP, done.lines)}", err=True)
            raise
        except sqlite3.OperationalError as exc:
            raise Failed(in_language(_NO_ROOM, exc)) from None

    name = str(file.name).lower()
    is_tsv = is_tsv or (not is_csv and name.endswith(".tsv"))
    is_csv = is_csv or is_tsv or name.endswith(".csv")
    form = Form(delimiter="\t" if is_tsv else ",", encoding=encoding, app_id=app_id or None, fields=fields)
    if not is_csv and not set(fields.values()) <= Line.model_fields.keys():
        raise click.UsageError("--map attributes.NAME is for CSV.")
    try:
        lines = CsvLines(file, form) if is_csv else json_lines(file, form)
    except BadHeader as exc:
        seen = ", ".join(printable(cell[:_LONGEST_CELL]) for cell in exc.seen[:_MOST_CELLS])
        found = in_language(_HEADER_READ, seen) if seen else ""
        raise Failed(f"{in_language(_LINE, 1, fault_text(exc.fault))}{found}") from None
    counts = with_services(run)
    click.echo(clear, err=True, nl=False)
    if counts.joined:
        click.echo(in_language(_JOINED, counts.joined), err=True)
    for fault, number in cost.most_common():
        click.echo(in_language(_ONE_LINE if number == 1 else _SOME_LINES, number, fault_text(fault)), err=True)
    if isinstance(lines, CsvLines) and lines.unknown:
        click.echo(in_language(_COLUMNS_IGNORED, ", ".join(map(printable, lines.unknown))), err=True)
    numbers = asdict(counts)
    shown_counts = _COUNTS if counts.blank else _COUNTS[:-1]
    text = ", ".join(f"{in_language(name)}: {numbers[name.en]}" for name in shown_counts)
    show(numbers, text, as_json=as_json)
    if counts.refused:
        click.echo(in_language(_RUN_AGAIN), err=True)
    if options.dry_run:
        click.echo(in_language(_STORED_NOTHING), err=True)
    if counts.refused:
        sys.exit(1)


class _Progress:
    """What an import shows on a terminal: lines, their pace, and what is left if the size of the file is known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._began = monotonic()
        try:
            status = os.fstat(file.fileno())
        except OSError:
            self._size = 0
        else:
            self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0

    def after(self, lines: int) -> Title:
        """What is shown after so many lines."""
        pace = lines / max(monotonic() - self._began, 1)
        shown = Title(f"{lines:,} lines, {pace:,.0f} a second", f"{lines:,} 行，每秒 {pace:,.0f} 行")
        if not self._size or not lines:
            return shown
        share = min(self._file.tell() / self._size, 1)
        minutes = (monotonic() - self._began) * (1 / max(share, 0.0001) - 1) / 60
        return Title(
            f"{shown.en}, {share:.0%}, {minutes:,.0f} min left", f"{shown.zh}，{share:.0%}，还需 {minutes:,.0f} 分钟"
        )


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("-"))
@click.option(
    "--format", "form", type=click.Choice(["json", "csv"]), help="By default csv if FILE's name ends in .csv."
)
def export_command(file: Path, form: str | None) -> None:
    """Export all users to FILE (- or no FILE: standard output), one identity a line of JSON or CSV.

    The file is one consistent snapshot. Only its owner can read it: it holds names and numbers.
    """
    is_csv = form == "csv" if form else file.suffix.lower() == ".csv"
    if str(file) == "-":
        with_database(lambda database, _: export_users(database, sys.stdout.buffer.write, is_csv=is_csv))
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
            number = with_database(lambda database, _: export_users(database, opened.write, is_csv=is_csv))
    except OSError as exc:
        raise Failed(f"{file}: {exc.strerror}") from None
    click.echo(say("{number} identities", number=number), err=True)
