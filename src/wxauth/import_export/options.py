"""The options of an import."""

from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo


def _switch(option: str, text: str) -> Any:
    """Return a field for a switch of the command, with the switch's name and help as metadata."""
    return field(default=False, metadata={"option": option, "help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of an import. The command derives its switches from the metadata of the fields."""

    dry_run: bool = _switch("--dry-run", "Check each line and report the result without storing anything.")
    overwrites: bool = _switch(
        "--overwrite", "Replace stored nicknames, pictures and phone numbers with the values in the file."
    )
    takes_roles: bool = _switch("--roles", "Change the roles of existing users.")
    takes_status: bool = _switch("--status", "Ban and unban existing users.")
    takes_attributes: bool = _switch("--attributes", "Change the attributes of existing users with JSON Merge Patch.")
    allows_admin: bool = _switch("--allow-admin", "Accept lines that grant the admin role or unban an administrator.")
    restores_erased: bool = _switch("--restore", "Accept lines whose user_id belongs to an erased user.")
    joins: bool = _switch(
        "--join",
        "Accept lines whose unionid or phone number differs from the value stored for the user with the same "
        "external_id. Use this option only if the line describes the same person.",
    )
    skips_bad_fields: bool = _switch(
        "--skip-bad-fields",
        "If a line's nickname, picture, phone number, time, attribute or ban reason is invalid, import "
        "the line without this field.",
    )
    quiet_events: bool = _switch("--quiet-events", "Don't record events for imported data.")
    """Whether the import records no events, except those about the status and the roles of stored users.

    The events about sessions that end because of a new status or new roles are also recorded.
    """
    time_zone: ZoneInfo | None = None
    """The time zone of times without an offset; None means that such times are refused."""
