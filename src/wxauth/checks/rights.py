"""The check for outsiders: roles that may use wxauth's tables, and are not excused.

For example, the service's role, owners and superusers are excused. `rights_queries` lists all excused roles.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from wxauth.checks.result import CheckResult, bad, note
from wxauth.checks.rights_queries import Revocation
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.terminal import listed

_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
"""The pattern of a name in double quotes. In the name, two double quotes stand for one."""


def judge_outsiders(revocations: Sequence[Revocation]) -> Iterator[CheckResult]:
    """Yield a result for roles that may change wxauth's tables, and one for roles that may only read or lock them.

    If there are no roles of one of these kinds, their result is left out.

    `revocations` contains at most `MOST_REVOCATIONS` steps for each of these two kinds of roles. If there are more, the
    printed statements are incomplete. After the operator has run them, the next check reports the rest.
    """
    writing = [step for step in revocations if step.may_write]
    reading = [step for step in revocations if not step.may_write]
    if writing:
        text = _(
            "roles other than the owner can change wxauth's tables, and could therefore become "
            "administrators: {roles}. As the tables' owner or a superuser, run {to_run} If one of these "
            "roles belongs to the service, run this check as that role",
            roles=_role_list(writing),
            to_run=" ".join(_statements(writing)),
        )
        yield bad("rights", text)
    if reading:
        text = _(
            "roles other than the owner can read or lock wxauth's tables: {roles}. If these roles don't need "
            "this access, run as the tables' owner or a superuser: {to_run} If one of these roles belongs to "
            "the service, run this check as that role",
            roles=_role_list(reading),
            to_run=" ".join(_statements(reading)),
        )
        yield note("rights to read", text)


def _role_list(steps: Sequence[Revocation]) -> Text:
    """Return the roles of these steps as a text, each with its members, which have the role's rights.

    If there are revocations that were not read, the text ends with their number, which is the same in all these steps.
    This number can be higher than the number of unnamed roles, because a role can need several revocations.
    """
    names: dict[str, str] = {}  # by role, because several steps can concern the same role
    for step in steps:
        name = _printable(step.role)
        if step.members:
            unlisted_count = step.member_count - len(step.members)
            members = listed(map(_printable, step.members), unlisted_count)
            name = _("{name} (and its members {members})", name=name, members=members)
        names.setdefault(step.role, name)
    return listed(names.values(), steps[0].unlisted_count)


def _statements(steps: Sequence[Revocation]) -> list[str]:
    """Return the SQL statements that revoke the rights in these steps. Roles with equal rights share one statement."""
    steps_by_right: dict[tuple[object, ...], list[Revocation]] = {}
    for step in steps:
        right = (step.group, tuple(step.relations), step.are_sequences, step.grantor, step.may_have_passed_on)
        steps_by_right.setdefault(right, []).append(step)
    # A role can revoke a right that it has granted only while it has the right itself. Therefore, rights that a role
    # other than the owner has granted are revoked before rights that the owner has granted. Within both groups, a right
    # comes last if its holder might have granted it to other roles.
    in_order = sorted(
        steps_by_right.values(), key=lambda alike: (alike[0].grantor is None, alike[0].may_have_passed_on)
    )
    statements: list[str] = []
    for alike in in_order:
        statements += _statements_for(alike)
    return statements


def _statements_for(steps: Sequence[Revocation]) -> list[str]:
    """Return the SQL statements that revoke rights from several roles. The steps must differ only in their roles."""
    step = steps[0]
    kind = "SEQUENCE" if step.are_sequences else "TABLE"
    what = _printable(step.group) if step.group else f"ALL ON {kind} {', '.join(map(_printable, step.relations))}"
    statement = f"REVOKE {what} FROM {', '.join(_printable(each.role) for each in steps)}"
    cascade = " CASCADE" if step.may_have_passed_on else ""
    if step.grantor is None:
        return [f"{statement}{cascade};"]
    if step.group:
        return [f"{statement} GRANTED BY {_printable(step.grantor)}{cascade};"]
    # For rights on tables, PostgreSQL accepts GRANTED BY only with the current role.
    return [f"SET ROLE {_printable(step.grantor)};", f"{statement}{cascade};", "RESET ROLE;"]


def _printable(names: str) -> str:
    """Return names that are quoted for SQL, with an escape in place of each character that is not printable.

    The escapes are necessary because a role's name may contain characters that control the operator's terminal.
    """
    return _QUOTED.sub(_escaped, names)


def _escaped(name: re.Match[str]) -> str:
    """Return a quoted name. If it is not printable, return it in PostgreSQL's form `U&"..."`.

    In this form, code points in hexadecimal replace the characters that are not printable, and backslashes.
    """
    if name[0].isprintable():
        return name[0]
    return "U&" + "".join(c if c.isprintable() and c != "\\" else f"\\+{ord(c):06X}" for c in name[0])
