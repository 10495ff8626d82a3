"""The check for outsiders: roles that may use wxauth's tables, and are not excused.

For example, the service's role, owners and superusers are excused. The query in `checks/queries.py` lists all excused
roles.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from wxauth.checks.queries import Revocation
from wxauth.checks.result import CheckResult, bad, note
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.terminal import listed

_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')  # in a name, two double quotes stand for one


def judge_outsiders(revocations: Sequence[Revocation]) -> Iterator[CheckResult]:
    """Yield a result for roles that may change wxauth's tables, and one for roles that may only read or lock them.

    `revocations` contains at most `MAX_REVOCATIONS` of each of these two kinds. If the roles need more, the next check
    reports the rest after the operator has run the printed statements.
    """
    writing = [revocation for revocation in revocations if revocation.may_write]
    reading = [revocation for revocation in revocations if not revocation.may_write]
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


def _role_list(revocations: Sequence[Revocation]) -> Text:
    names: dict[str, str] = {}  # by role, because several revocations can concern the same role
    for revocation in revocations:
        name = _printable(revocation.role)
        if revocation.members:
            unlisted_count = revocation.member_count - len(revocation.members)
            members = listed(map(_printable, revocation.members), unlisted_count)
            name = _("{name} (and its members {members})", name=name, members=members)
        names.setdefault(revocation.role, name)
    # The number is the same in all these revocations. It counts a role again for each revocation that the role needs.
    return listed(names.values(), revocations[0].unlisted_count)


def _statements(revocations: Sequence[Revocation]) -> list[str]:
    # A role can revoke a right that it has granted only while it has the right itself. Therefore, rights that a role
    # other than the owner has granted are revoked before rights that the owner has granted. Within both groups, a right
    # comes last if its holder might have granted it to other roles.
    in_order = sorted(revocations, key=lambda each: (each.grantor is None, each.may_have_passed_on))
    alike_by_key: dict[tuple[object, ...], list[Revocation]] = {}
    for each in in_order:
        all_but_role = (each.group, tuple(each.relations), each.are_sequences, each.grantor, each.may_have_passed_on)
        alike_by_key.setdefault(all_but_role, []).append(each)
    return [statement for alike in alike_by_key.values() for statement in _statements_for(alike)]


def _statements_for(alike: Sequence[Revocation]) -> list[str]:
    revocation = alike[0]
    if revocation.group is not None:
        what = _printable(revocation.group)
    else:
        kind = "SEQUENCE" if revocation.are_sequences else "TABLE"
        what = f"ALL ON {kind} {', '.join(map(_printable, revocation.relations))}"
    statement = f"REVOKE {what} FROM {', '.join(_printable(each.role) for each in alike)}"
    cascade = " CASCADE" if revocation.may_have_passed_on else ""
    if revocation.grantor is None:
        return [f"{statement}{cascade};"]
    grantor = _printable(revocation.grantor)
    if revocation.group is not None:
        return [f"{statement} GRANTED BY {grantor}{cascade};"]
    # For rights on tables, PostgreSQL accepts GRANTED BY only with the current role.
    return [f"SET ROLE {grantor};", f"{statement}{cascade};", "RESET ROLE;"]


# A role's name may contain characters that control the operator's terminal.
def _printable(names: str) -> str:
    return _QUOTED.sub(_escaped, names)


# PostgreSQL's form `U&"..."` has hexadecimal code points for characters that are not printable, and backslashes.
def _escaped(name: re.Match[str]) -> str:
    if name[0].isprintable():
        return name[0]
    return "U&" + "".join(c if c.isprintable() and c != "\\" else f"\\+{ord(c):06X}" for c in name[0])
