"""An operator who imports and exports users."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tests.world import Stage, recorded
from wxauth.i18n import Text
from wxauth.import_export.exporting import export_users
from wxauth.import_export.files import DEFAULT_FORMAT, CsvLines, FileFormat, JsonLines
from wxauth.import_export.importing import Counts, ImportRefusal, import_users
from wxauth.import_export.numbered_lines import NumberedLine
from wxauth.import_export.rules import Options


@dataclass(slots=True)
class Again:
    """Numbered lines that can be read twice, as the lines of a file can."""

    begin: Callable[[], Iterable[NumberedLine | tuple[int, bytes]]]

    def __iter__(self) -> Iterator[NumberedLine]:
        return (NumberedLine(*line) for line in self.begin())


@dataclass(slots=True)
class Mover:
    """An operator who runs the import, and the reports that the import makes."""

    stage: Stage
    refusals: list[tuple[int, str]] = field(default_factory=list)
    messages: list[Text] = field(default_factory=list)
    others: list[Sequence[int]] = field(default_factory=list)

    async def with_settings(self, **settings: object) -> Self:
        """Return the operator of a service with these settings."""
        return self.__class__(await self.stage.replica(**settings))

    async def import_text(self, text: bytes, *, is_csv: bool = False, **options: Any) -> Counts:
        return await self.import_as(DEFAULT_FORMAT, text, is_csv=is_csv, **options)

    async def import_as(self, file_format: FileFormat, text: bytes, *, is_csv: bool = False, **options: Any) -> Counts:
        return await self.import_numbered((CsvLines if is_csv else JsonLines)(io.BytesIO(text), file_format), **options)

    async def import_numbered(
        self, lines: Iterable[NumberedLine], how: Mapping[str, Any] | None = None, **options: Any
    ) -> Counts:
        self.refusals, self.messages, self.others = [], [], []

        def refuse(refusal: ImportRefusal) -> None:
            for fault in refusal.faults:
                self.refusals.append((refusal.number, fault.field))
                self.messages.append(fault.rule)
            self.others.append(tuple(refusal.other_lines))

        how = {
            "report_refusal": refuse,
            "report_progress": lambda _: None,
            "report_wait": lambda _, _seconds: None,
            **(how or {}),
        }
        return await import_users(self.stage.services, lines, Options(**options), **how)

    async def import_lines(self, *lines: dict[str, Any], **options: bool) -> tuple[int, int, int, int]:
        """Import these lines, and return how many were created, updated, unchanged and refused."""
        counts = await self.import_text(b"".join(json.dumps(line).encode() + b"\n" for line in lines), **options)
        assert counts.lines == len(lines)
        return counts.created, counts.updated, counts.unchanged, counts.refused

    async def begin_anew(self) -> None:
        """Delete all users and everything about them."""
        await self.stage.rows.execute("TRUNCATE users, former_users, former_external_ids, consents, events CASCADE")

    async def move_out_and_in(self, **options: Any) -> Counts:
        """Export all users, delete them, import them again, and check that nothing has changed."""
        exported = await self.export()
        await self.begin_anew()
        counts = await self.import_text(exported, **options)
        assert (counts.refused, await self.export()) == (0, exported), self.messages
        return counts

    async def users(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.stage.rows.fetch("SELECT * FROM users ORDER BY created_at, id")]

    async def user(self) -> dict[str, Any]:
        [user] = await self.users()
        return user

    async def events(self) -> list[tuple[str, str]]:
        return await recorded(self.stage.rows, "type, actor")

    async def export(self) -> bytes:
        written = io.BytesIO()
        await export_users(self.stage.services.database, written.write)
        return written.getvalue()
