"""The commands `wxauth users import` and `wxauth users export`."""

import errno
import os
import signal
import sqlite3
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile, mkstemp
from time import monotonic
from typing import IO, Any, Final
from zoneinfo import ZoneInfo

import click

from wxauth.apps.registry import Apps
from wxauth.cli.options import checked, text_option, unusable_file
from wxauth.cli.printing import Command, Failed, WrongCall, echo, json_option, printable, show
from wxauth.cli.resources import with_database, with_services
from wxauth.core.outages import outage_text
from wxauth.core.services import Services
from wxauth.errors import StorageUnavailable
from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.import_export.exporting import export_users
from wxauth.import_export.files import CsvLines, FileFormat, JsonLines, is_field
from wxauth.import_export.importing import USUAL_OPENID_LENGTH, Counts, ImportRefusal, import_users
from wxauth.import_export.lines import Line
from wxauth.import_export.other_files import WrongFile
from wxauth.import_export.rules import Options
from wxauth.terminal import localized

_COUNTS: Final = _("lines: {lines}, created: {created}, updated: {updated}, unchanged: {unchanged}, refused: {refused}")
_JOINED: Final = _(
    "lines joined to an existing user only by external_id: {n:,}. Check that each line belongs to the "
    "same person as its user. If two tables number their rows independently, add a prefix to their "
    "IDs"
)
_ODD_OPENIDS: Final = _(
    "openids that aren't {length} characters long, which is the usual length: {n:,}. Check that you "
    "chose the right column, and that the openids are complete"
)
_RUN_AGAIN: Final = _(
    "correct the rejected lines, and run the command again with the complete file. Lines that "
    "have already been imported aren't affected"
)
_NO_ROOM: Final = _("the temporary folder (TMPDIR) is full: {error}")

_MAX_SHOWN_NAMES: Final = 30
_MAX_SHOWN_NAME: Final = 40  # characters


def _mappings_in(options: Sequence[str]) -> FileFormat:
    our_names: dict[str, str] = {}
    left_out: set[str] = set()
    our_values: dict[str, dict[str, str]] = {}
    for option in options:
        left, equals, right = option.partition("=")
        name, colon, value = (part.strip() for part in left.partition(":"))
        # An empty OURS makes the field empty, and an empty COLUMN leaves the field out.
        if not (is_field(name) and equals and (value or not colon)):
            raise WrongValue(
                _(
                    "must have the form FIELD=COLUMN, FIELD= or FIELD:VALUE=OURS, where FIELD is listed in "
                    "docs/start/import-file.md"
                )
            )
        if colon:
            is_repeated = value in our_values.get(name, ())
            our_values.setdefault(name, {})[value] = right
        else:
            is_repeated = right in our_names or name in our_names.values() or name in left_out
            if right:
                our_names[right] = name
            else:
                left_out.add(name)
        if is_repeated or not left_out.isdisjoint(our_values):
            raise WrongValue(_("must contain each FIELD and each COLUMN or VALUE only once"))
    return FileFormat(fields=our_names, left_out=left_out, values=our_values)


_time_zone = checked(ZoneInfo, _("must be the name of a time zone such as Asia/Shanghai"))


def _open_input(path: str) -> IO[bytes]:
    if path == "-":
        return sys.stdin.buffer
    return click.get_current_context().with_resource(Path(path).open("rb"))  # closed when the command ends


def _rereadable(file: IO[bytes]) -> IO[bytes]:
    """Return a file that can be read twice, because an import reads it twice."""
    with suppress(OSError):
        # Python caches the first result of `seekable()`, which is wrong if standard input was redirected later.
        file.tell()
        return file
    try:
        copy: IO[bytes] = click.get_current_context().with_resource(TemporaryFile())  # noqa: SIM115
    except FileNotFoundError:  # no temporary folder is writable, so the copy is in memory
        copy = BytesIO()
    try:
        copyfileobj(file, copy)
        copy.seek(0)
    except OSError as exc:
        raise Failed(Text(_NO_ROOM, error=exc.strerror)) from None
    return copy


def _add_switches(command: Command) -> Command:
    switches = [field for field in fields(Options) if field.metadata]
    for field in reversed(switches):  # click shows options in the reverse of the order in which they are added
        command = click.option(field.metadata["option"], field.name, is_flag=True, help=field.metadata["help"])(command)
    return command


@click.command()
@click.argument("file", callback=checked(_open_input))
@click.option(
    "--csv", "is_csv", is_flag=True, help="FILE is a CSV file. You can omit this option if the file name ends in .csv."
)
@click.option(
    "--tsv",
    "is_tsv",
    is_flag=True,
    help="FILE contains tab-separated values. You can omit this option if the file name ends in .tsv.",
)
@click.option("--app-id", callback=text_option, help="The app for lines that don't specify an app.")
@click.option(
    "--map",
    "mappings",
    metavar="FIELD=COLUMN",
    multiple=True,
    callback=checked(_mappings_in),
    help="The name that FILE uses for a field, such as openid=weixin_openid, or for a value, such as "
    "status:banned=disabled. FIELD= leaves a field out, such as roles=. Repeatable.",
)
@click.option(
    "--time-zone",
    callback=_time_zone,
    help="The time zone, such as Asia/Shanghai, for times that don't specify a time zone.",
)
@_add_switches
@json_option
def import_command(
    file: IO[bytes],
    is_csv: bool,
    is_tsv: bool,
    app_id: str | None,
    mappings: FileFormat,
    **switches: Any,
) -> None:
    """Import users from FILE, with one identity per line, as JSON or CSV.

    If FILE is -, the command reads standard input. Each line must have app_id and openid, or only a unionid. The first
    line of CSV contains the names of the fields. You can safely run an import again. If the connection to the database
    is lost, wxauth retries for ten minutes. Rejected lines are reported in Chinese if your locale is Chinese. The exit
    status is 1 if a line was rejected.
    """
    options = Options(**switches)  # `switches` also contains `time_zone`, because this is a field of `Options`, too
    delimiter = _delimiter_of(str(file.name), is_csv=is_csv, is_tsv=is_tsv)
    # The only other fields that `--map` accepts are attributes.NAME. They are columns of CSV. A line of JSON has one
    # object `attributes` instead.
    if (
        delimiter is None
        and not {*mappings.fields.values(), *mappings.left_out, *mappings.values} <= Line.model_fields.keys()
    ):
        raise WrongCall(_("--map attributes.NAME is only for CSV"))
    # Only `CsvLines` uses the delimiter. `--app-id ''`, for example from a script with an unset variable, is treated
    # like an absent option.
    file_format = replace(mappings, delimiter=delimiter or ",", app_id=app_id or None)
    read_lines = JsonLines if delimiter is None else CsvLines
    try:
        lines = read_lines(_rereadable(file), file_format)
    except WrongFile as exc:
        raise _failure_of(exc) from None
    report = _Report(has_elements=lines.has_elements)
    counts = with_services(lambda services: _import(services, lines, options, report, app_id))
    report.finish(counts, lines.ignored_names, is_dry_run=options.dry_run)
    if counts.refused:
        sys.exit(1)


# The options take precedence over the file's name. JSON has no delimiter.
def _delimiter_of(name: str, *, is_csv: bool, is_tsv: bool) -> str | None:
    if is_tsv or (not is_csv and name.lower().endswith(".tsv")):
        return "\t"
    if is_csv or name.lower().endswith(".csv"):
        return ","
    return None


class _Report:
    """The output of an import, which goes to standard error, except for the counts at the end."""

    def __init__(self, *, has_elements: bool) -> None:
        self._has_elements = has_elements
        # On a terminal, the last line shows the progress, and each further line replaces it. These control characters
        # move the cursor to the beginning of the line, and erase the line.
        self._clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        self._faults: Counter[str] = Counter()  # the number of lines with each fault
        self.last_counts = Counts()  # after the last batch
        self._began = monotonic()

    def print_refusal(self, refusal: ImportRefusal) -> None:
        """Print the faults of a line that is refused, or imported without its invalid fields, and count each fault."""
        faults = [_("{name}: {rule}", name=fault.field, rule=fault.rule) for fault in refusal.faults]
        text = _("; ").join(faults)
        if refusal.other_lines:
            template = _("{faults} (element {numbers})") if self._has_elements else _("{faults} (line {numbers})")
            text = Text(template, faults=text, numbers=", ".join(map(str, refusal.other_lines)))
        if refusal.skips_only_fields:
            faults = [_("skipped: {faults}", faults=fault) for fault in faults]
            text = _("skipped: {faults}", faults=text)
        self._faults.update(faults)
        template = _("element {number}: {faults}") if self._has_elements else _("line {number}: {faults}")
        self.print(Text(template, number=refusal.number, faults=text))

    def show_progress(self, counts: Counts) -> None:
        """Store the counts, and show the progress if standard error is a terminal."""
        self.last_counts = counts
        if self._clear:
            pace = counts.lines / max(monotonic() - self._began, 1)  # in the first second, the pace would be too high
            text = _("{n:,} lines, {pace:,.0f} per second", n=counts.lines, pace=pace)
            click.echo(self._clear + localized(text), err=True, nl=False)

    def print_wait(self, exc: StorageUnavailable, seconds: float) -> None:
        """Print why a batch was not stored, and after how many seconds the import tries again."""
        self.print(_("{trouble}; trying again in {seconds:.0f} s", trouble=outage_text(exc), seconds=seconds))

    def finish(self, counts: Counts, ignored_names: Sequence[str], *, is_dry_run: bool) -> None:
        """Print the number of lines with each fault, advice, and the counts."""
        click.echo(self._clear, err=True, nl=False)
        self._clear = ""  # the progress is no longer shown
        if counts.joined:
            self.print(Text(_JOINED, n=counts.joined))
        for fault, n in self._faults.most_common():
            template = _("{n:,} line: {faults}") if n == 1 else _("{n:,} lines: {faults}")
            self.print(Text(template, n=n, faults=fault))
        if ignored_names:
            self.print(_("ignored columns: {names}", names=", ".join(map(printable, ignored_names))))
        if counts.odd_openids:
            self.print(Text(_ODD_OPENIDS, n=counts.odd_openids, length=USUAL_OPENID_LENGTH))
        numbers = asdict(counts)
        text = Text(_COUNTS, **numbers)
        if counts.incomplete:
            text += _(", imported without their invalid fields: {n}", n=counts.incomplete)
        if counts.blank:
            text += _(", blank lines: {n}", n=counts.blank)
        show(numbers, text)
        if counts.refused:
            self.print(_RUN_AGAIN)
        if is_dry_run:
            self.print(_("nothing was stored. To import the file, run the command without --dry-run"))

    def print(self, text: Text) -> None:
        """Print a line to standard error. On a terminal, it replaces the line that shows the progress."""
        click.echo(self._clear + localized(text), err=True)


def _failure_of(exc: WrongFile) -> Failed:
    text = _("{name}: {rule}", name=exc.fault.field, rule=exc.fault.rule)
    if exc.fault.field == "line":  # the fault is in the first line, which is the header of CSV
        text = _("line {number}: {faults}", number=1, faults=text)
    if exc.names:
        names = ", ".join(printable(name[:_MAX_SHOWN_NAME]) for name in exc.names[:_MAX_SHOWN_NAMES])
        text += _("; found: {seen}", seen=names)
    return Failed(text)


async def _import(
    services: Services, lines: CsvLines | JsonLines, options: Options, report: _Report, app_id: str | None
) -> Counts:
    if app_id:
        services[Apps].entry(app_id)  # an unknown app fails before the first line is read
    report.show_progress(Counts())
    try:
        return await import_users(
            services,
            lines,
            options,
            report_refusal=report.print_refusal,
            report_progress=report.show_progress,
            report_wait=report.print_wait,
        )
    except WrongFile as exc:
        raise _failure_of(exc) from None
    except StorageUnavailable:
        text = _(
            "{n:,} lines are done. Run the same command again. Lines that have already been imported aren't affected",
            n=report.last_counts.lines,
        )
        report.print(text)
        raise
    except sqlite3.OperationalError as exc:  # `import_users` stores its notes in a temporary SQLite file
        raise Failed(Text(_NO_ROOM, error=exc)) from None


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("-"))
def export_command(file: Path) -> None:
    """Export all users to FILE, with one identity per line, as JSON.

    Without FILE, or if FILE is -, the users are written to standard output. A unionid that doesn't belong to
    any of the user's identities has its own line, without app_id and openid. The file is a consistent snapshot. Only
    the file's owner can read it, because it contains names and phone numbers. An existing FILE is replaced only when
    the export is complete. If the exit status isn't 0, standard output is incomplete.
    """
    if str(file) == "-":
        with_database(lambda database, _now: export_users(database, sys.stdout.buffer.write))
        sys.stdout.buffer.flush()
        return
    try:
        with _whole_file(file) as opened:
            exported = with_database(lambda database, _now: export_users(database, opened.write))
    except OSError as exc:
        raise Failed(unusable_file(file, exc)) from None
    text = _("{number} identities", number=exported.identities)
    if exported.unionids:
        text += _(", unionids without an identity: {n}", n=exported.unionids)
    echo(text, err=True)


@contextmanager
def _whole_file(file: Path) -> Iterator[IO[bytes]]:
    """Yield a file that only its owner can read, and that replaces `file` if the block succeeds.

    A device, a pipe or standard output is written directly.
    """
    try:
        if _is_written_directly(file):
            opened: IO[bytes] = file.open("wb")
            part = None
        else:
            file = Path(os.path.realpath(file))  # a symbolic link stays, and its target is replaced
            descriptor, part = mkstemp(prefix=".wxauth-export-", dir=file.parent)
            opened = os.fdopen(descriptor, "wb")
    except OSError as exc:
        raise click.UsageError(localized(unusable_file(file, exc))) from None
    if part is None:
        with opened:
            yield opened
        return
    for number in (signal.SIGTERM, signal.SIGHUP):  # these signals would otherwise leave the part behind
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, file)
    except BaseException:
        os.unlink(part)
        raise


def _is_written_directly(file: Path) -> bool:
    try:
        status = file.stat()
    except FileNotFoundError:
        return False
    # /dev/stdout and /dev/fd/3 stand for a file that the shell has opened, perhaps to append to it.
    folder = os.path.realpath(file.parent)
    if not stat.S_ISREG(status.st_mode) or folder in ("/dev", "/dev/fd") or folder.startswith("/proc/"):
        return True
    if os.geteuid() not in (0, status.st_uid):  # replacing the file would also change its owner
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return False
