"""Rules that hold for every history.

Each check reports the faults that it finds, and the user that each fault concerns.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.histories.found import OF_PEOPLE, Found, Row
from tests.histories.town import BY_STAFF, Asked
from tests.world import Body
from wxauth_desk.wechat.people import openid_of


class Fault(NamedTuple):
    """A violation of a rule."""

    about: str | None
    """The id of the user, or the name of the person if the user isn't known."""
    text: str


Check = Callable[[Found], Iterator[Fault]]


@dataclass(slots=True)
class Rebuilt:
    """A user as another service knows them from the feed alone."""

    status: str = "active"
    roles: tuple[str, ...] = ()
    consents: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The time of each consent and the version that it is for, by document."""
    has_number: bool = False
    is_leaving: bool = False
    apps: set[str] = field(default_factory=set)


class Book:
    """The users of another service, which it updates only from the feed."""

    def __init__(self) -> None:
        self.users: dict[str, Rebuilt] = {}
        self.merged_into: dict[str, str] = {}
        self.faults: list[Fault] = []

    def read(self, event: Body) -> None:
        kind, user_id, data = event["type"], event["user_id"], event["data"]
        if kind == "user.created":
            if user_id in self.users:
                self.faults.append(Fault(user_id, "is created twice"))
            self.users[user_id] = Rebuilt(roles=tuple(data.get("roles", ())), apps={event["app_id"]})
            return
        user = self.users.get(user_id)
        if user is None:
            if kind not in ("session.ended", "user.profile_changed"):  # these events change nothing after a user's end
                self.faults.append(Fault(user_id, f"{kind} of a user who is not known then"))
            return
        match kind:
            case "user.merged":
                self._merge(user_id, user, data["former_id"])
            case "user.split":
                self.users[data["new_user_id"]] = Rebuilt(apps=set(data["app_ids"]))
                user.apps = set(data["kept_app_ids"])
            case "user.erased":
                del self.users[user_id]
                for former_id in [former for former in self.merged_into if self.remaining(former) == user_id]:
                    if former_id not in data["former_ids"]:
                        self.faults.append(Fault(user_id, f"is erased without {former_id}, which was merged into it"))
                for former_id in data["former_ids"]:
                    self.merged_into.pop(former_id, None)
                    self.users.pop(former_id, None)
            case "identity.added":
                user.apps.add(event["app_id"])
            case "identity.removed":
                user.apps.discard(event["app_id"])
            case "user.banned":
                user.status = "disabled"
            case "user.unbanned":
                user.status = "active"
            case "user.leaving":
                user.is_leaving = True
            case "user.stayed":
                user.is_leaving = False
            case "user.roles_changed":
                user.roles = tuple(data["after"])
            case "user.phone_bound":
                user.has_number = True
            case "user.phone_removed":
                user.has_number = False
            case "consent.given":
                user.consents[data["document"]] = (event["at"], data["version"])
            case "consent.withdrawn":
                user.consents.pop(data["document"], None)

    def remaining(self, user_id: str) -> str:
        """Return the user that a former id was merged into."""
        while user_id in self.merged_into:
            user_id = self.merged_into[user_id]
        return user_id

    def _merge(self, user_id: str, user: Rebuilt, former_id: str) -> None:
        former = self.users.pop(former_id, None)
        if former is None:
            self.faults.append(Fault(user_id, f"{former_id}, who is not known then, is merged into it"))
            return
        self.merged_into[former_id] = user_id
        user.apps |= former.apps
        user.has_number |= former.has_number
        if user.is_leaving or former.is_leaving:
            self.faults.append(Fault(user_id, f"is merged with {former_id} though one of them is leaving"))
        for document, given in former.consents.items():
            user.consents[document] = max(given, user.consents.get(document, given))


# 1. Siblings learn what has happened.


def rebuilt_from_the_feed(found: Found) -> Iterator[Fault]:
    """Check that users rebuilt from the feed alone equal the users in the database."""
    book = Book()
    for event in found.feed:
        if event["user_id"] is not None:
            book.read(event)
    yield from book.faults
    stored = {str(row["id"]): row for row in found.tables["users"]}
    for user_id in sorted(stored.keys() ^ book.users.keys()):
        yield Fault(user_id, "exists" if user_id in stored else "does not exist, but by the feed")
    apps: dict[str, set[str]] = defaultdict(set)
    for row in found.tables["identities"]:
        apps[str(row["user_id"])].add(row["app_id"])
    for user_id, row in stored.items():
        known = book.users.get(user_id)
        if known is None:
            continue
        facts: dict[str, tuple[object, object]] = {
            "status": (known.status, row["status"]),
            "roles": (sorted(known.roles), sorted(row["roles"])),
            "consents": ({document: version for document, (_, version) in known.consents.items()}, _consents_of(row)),
            "has a number": (known.has_number, row["phone"] is not None),
            "is leaving": (known.is_leaving, row["erase_at"] is not None),
            "apps": (sorted(known.apps), sorted(apps[user_id])),
        }
        for name, (told, stands) in facts.items():
            if told != stands:
                yield Fault(user_id, f"{name}: {told} by the feed, {stands} in the database")
    former = {str(row["id"]): str(row["user_id"]) for row in found.tables["former_users"]}
    told_former = {user_id: book.remaining(user_id) for user_id in book.merged_into}
    for user_id in sorted(former.keys() | told_former.keys()):
        if former.get(user_id) != told_former.get(user_id):
            yield Fault(user_id, f"merged into {told_former.get(user_id)} by the feed, into {former.get(user_id)}")


def in_order(found: Found) -> Iterator[Fault]:
    """Check that each user's events have one order in feed and trail.

    Times must not run backwards, and the creation must come first.
    """
    places = {event["id"]: place for place, event in enumerate(found.trail)}
    split = {event["data"]["new_user_id"] for event in found.trail if event["type"] == "user.split"}
    for name, events in (("feed", found.feed), ("trail", found.trail)):
        last: dict[str, Body] = {}
        # The first event of a split user is recorded for the other user, in any order with the split user's own events.
        known = set(split)
        for event in events:
            user_id = event["user_id"]
            if user_id is None:
                continue
            if user_id not in known and event["type"] != "user.created":
                yield Fault(user_id, f"begins with {event['type']} in the {name}")
            known.add(user_id)
            before = last.get(user_id)
            if before is not None and before["at"] > event["at"]:
                yield Fault(user_id, f"{event['type']} is before {before['type']} by its time, in the {name} after it")
            last[user_id] = event
    newest: dict[str, Body] = {}
    for event in found.feed:
        if event["id"] not in places:
            yield Fault(event["user_id"], f"{event['type']} of the feed is not in the trail")
        else:
            before = newest.get(event["user_id"], event)
            if places[before["id"]] > places[event["id"]]:
                yield Fault(
                    event["user_id"], f"{before['type']}, {event['type']} in the feed, the reverse in the trail"
                )
            newest[event["user_id"]] = event


# 2. One person is one user.


def one_user_each(found: Found) -> Iterator[Fault]:
    """Check that each identity and each unionid in use has only one user."""
    holders = {row["unionid"]: row["user_id"] for row in found.tables["unionids"]}
    openids: dict[tuple[str, str], str] = {}
    for row in found.tables["identities"]:
        unionid, user_id = row["unionid"], row["user_id"]
        if unionid is None:
            continue
        if holders.get(unionid) != user_id:
            yield Fault(str(user_id), f"has an identity of {unionid}, which is {holders.get(unionid)}'s")
        if openids.setdefault((row["app_id"], unionid), row["openid"]) != row["openid"]:
            yield Fault(str(user_id), f"has two openids of one unionid in {row['app_id']}")
    for row in found.tables["users"]:
        if row["unionid"] is not None and holders.get(row["unionid"]) != row["id"]:
            yield Fault(str(row["id"]), "has a unionid that is another's")


def one_user_for_a_person(found: Found) -> Iterator[Fault]:
    """Check that a person whose unionid both apps know is one user, unless an administrator has split them."""
    owners = {(row["app_id"], row["openid"]): str(row["user_id"]) for row in found.tables["identities"]}
    last: dict[str, dict[str, Asked]] = defaultdict(dict)
    for asked in found.asked:
        if asked.what == "log in" and asked.is_done and asked.person and asked.app_id and asked.value.get("unionid"):
            last[asked.person][asked.app_id] = asked
    for person, logins in last.items():
        users = {owners.get((app_id, openid_of(person, app_id))) for app_id in logins} - {None}
        ends = ("split", *ENDS_OF_USERS)
        ended = [each for each in found.asked if each.what in ends and each.may_be_done]
        is_certain = not any(
            _is_about(found, each, login) and not each.precedes(login) for each in ended for login in logins.values()
        )
        has_been_split = any(
            each.what == "split" and _is_about(found, each, login) for each in ended for login in logins.values()
        )
        if len(users) > 1 and is_certain and not has_been_split:
            yield Fault(person, f"is {len(users)} users: {sorted(map(str, users))}")


# 3. Acknowledged changes have happened.


def nothing_acknowledged_is_lost(found: Found) -> Iterator[Fault]:
    """Check that each acknowledged change is still there.

    A change can be missing only if another change explains it. The other change must not have ended before this one
    began.
    """
    group(found)
    users = {str(row["id"]): row for row in found.tables["users"]}
    former = {str(row["id"]): str(row["user_id"]) for row in found.tables["former_users"]}
    sessions = {str(row["id"]): row for row in found.tables["sessions"]}
    for asked in found.asked:
        if asked.status == 404 and asked.what in BY_ADMINISTRATORS and not _may_be_gone(found, asked):
            yield Fault(asked.user_id, f"is not found: {asked}")
        if not asked.is_done or asked.user_id is None:
            continue
        user_id = former.get(asked.user_id, asked.user_id)
        if lost := _lost(found, asked, users.get(user_id), sessions, is_known=asked.user_id in users.keys() | former):
            yield Fault(asked.user_id, f"{lost}: {asked}")


def _lost(found: Found, asked: Asked, user: Row | None, sessions: Mapping[str, Row], *, is_known: bool) -> str | None:
    """Return what is missing of an acknowledged change, or None if nothing is missing."""

    def others(*whats: str) -> Iterator[Asked]:
        """Yield requests that might have come later and concern the same user, or a user merged with them."""
        for other in found.asked:
            may_explain = other is not asked and other.what in whats and other.may_be_done
            if may_explain and _is_about(found, other, asked) and not other.precedes(asked):
                yield other

    def is_explained(*whats: str, by_login: str = "") -> bool:
        """Return whether one of these requests, or a login that has set `by_login`, might explain the change."""
        logins = others("log in") if by_login else ()
        return any(others(*whats)) or any(login.value.get(by_login) for login in logins)

    is_alone = not is_joined(found, asked.user_id)
    match asked.what:
        case "erase":
            return "is there though erased" if is_known else None
        case "log in" if asked.answer["session_id"] not in sessions:
            return None if is_explained(*ENDS_OF_USERS) else "the session is gone"
        case "log out" if (row := sessions.get(asked.value)) is not None and row["revoked_at"] is None:
            return "the session is open"
    if user is None:
        is_over = asked.what in OF_ANYBODY or is_explained(*ENDS_OF_USERS)
        return None if is_over else "the user is gone"
    match asked.what:
        case "ban" if user["status"] == "active":
            return None if is_explained("unban", "split", *ENDS_OF_USERS) else "is not banned"
        case "unban" if user["status"] == "disabled":
            is_banned_anew = is_explained("ban", "merge", "log in", "bind number")
            return None if is_banned_anew and not _is_older_ban(found, asked, user) else "is banned"
        case "give roles" if asked.value not in user["roles"]:
            return None if is_explained("give roles", "split", *ENDS_OF_USERS) else "the role is gone"
        case "change name" if is_alone and user["nickname"] != asked.value:
            is_over = is_explained("change name", "withdraw in WeChat", *ENDS_OF_USERS, by_login="nickname")
            return None if is_over else "has another name"
        case "give consent" if is_alone and asked.value not in _consents_of(user):
            return None if is_explained("withdraw consent", *ENDS_OF_USERS) else "the consent is gone"
        case "withdraw consent" if is_alone and asked.value in _consents_of(user):
            is_given = any(other.value == asked.value for other in others("give consent"))
            return None if is_given or is_explained(by_login="consents") else "the consent is there"
        case "leave" if user["erase_at"] is None:
            return None if is_explained("keep", by_login="stays") else "is not leaving"
        case "keep" if user["erase_at"] is not None:
            return None if is_explained("leave") else "is leaving though kept"
        case "remove number" | "clear number" if is_alone and user["phone"] is not None:
            return None if is_explained("bind number", by_login="number") else "the number is there"
        case "bind number" if is_alone and user["phone"] is None:
            moved = any(other.is_done for other in found.asked if other.what in ("bind number", "log in"))
            is_gone = is_explained(
                "remove number", "clear number", "withdraw in WeChat", "erase", "withdraw everything"
            )
            removed = ("user.phone_removed", asked.user_id)
            is_taken = moved and any((event["type"], event["user_id"]) == removed for event in found.trail)
            return None if is_gone or is_taken else "the number is gone"
        case "end sessions" | "sign out elsewhere":
            kept = asked.value
            for other in found.asked:
                if other.what != "log in" or not other.is_done or not other.precedes(asked):
                    continue
                session_id = other.answer["session_id"]
                row = sessions.get(session_id)
                if other.user_id == asked.user_id and session_id != kept and row and row["revoked_at"] is None:
                    return f"the session {session_id} is open"
        case "merge" if asked.user_id == str(user["id"]) and asked.user_id != asked.value:
            return None if is_explained("split", *ENDS_OF_USERS) else "is not merged"
    return None


def _is_about(found: Found, one: Asked, other: Asked) -> bool:
    """Return whether two requests concern one person, or people whom merges or splits have joined."""
    group(found)
    return one.person == other.person or (
        one.user_id is not None and found.group_of.get(one.user_id) == found.group_of.get(other.user_id or "")
    )


def _may_be_gone(found: Found, asked: Asked) -> bool:
    """Return whether an erasure of this user, or of the user to merge with, might have come before this request."""
    number_of = found.group_of
    numbers = {number_of.get(str(user_id)) for user_id in (asked.user_id, asked.value)} - {None}
    # WeChat closes the account of a person. The person's user might have been unknown when the message was sent.
    people = {asked.person} | {other.person for other in found.asked if number_of.get(other.user_id or "") in numbers}
    return any(
        other.what in ENDS_OF_USERS
        and other.may_be_done
        and (other.person in people or number_of.get(other.user_id or "") in numbers)
        and not asked.precedes(other)
        for other in found.asked
        if other is not asked
    )


def _is_older_ban(found: Found, unban: Asked, user: Row) -> bool:
    """Return whether the current ban had ended before it was lifted."""
    bans = [asked for asked in found.asked if asked.what == "ban" and asked.value == user["ban_reason"]]
    return bool(bans) and all(ban.precedes(unban) for ban in bans) and not is_joined(found, unban.user_id)


def group(found: Found) -> None:
    """Give the same number to all ids that merges and splits have joined, or might have joined, to one user."""
    number_of = found.group_of
    if number_of:
        return
    pairs = [
        (event["user_id"], event["data"].get("former_id") or event["data"].get("new_user_id"))
        for event in found.trail
        if event["type"] in ("user.merged", "user.split")
    ]
    pairs += [(asked.user_id, asked.value) for asked in found.asked if asked.what == "merge" and asked.may_be_done]
    for asked in found.asked:
        if asked.user_id is not None:
            number_of.setdefault(asked.user_id, len(number_of))
    for one, other in pairs:
        former, number = number_of.setdefault(other, len(number_of)), number_of.setdefault(one, len(number_of))
        for user_id, its in number_of.items():
            if its == former:
                number_of[user_id] = number


def is_joined(found: Found, user_id: str | None) -> bool:
    """Return whether merges or splits concern this user, or might concern them."""
    group(found)
    return list(found.group_of.values()).count(found.group_of.get(user_id or "", -1)) > 1


# 4. Users who may not log in have no session.


def nobody_is_in_who_may_not_be(found: Found) -> Iterator[Fault]:
    """Check that banned, leaving and erased users have no session.

    A refresh token must work while its session is open, and only then.
    """
    users = {row["id"]: row for row in found.tables["users"]}
    sessions = {str(row["id"]): row for row in found.tables["sessions"]}
    for row in sessions.values():
        user = users.get(row["user_id"])
        is_out = (
            "erased" if user is None else "banned" if user["status"] != "active" else user["erase_at"] and "leaving"
        )
        if row["revoked_at"] is None and is_out:
            yield Fault(str(row["user_id"]), f"{is_out}, and the session {row['id']} is open")
    for refreshed in found.refreshed:
        session = sessions.get(refreshed.session_id)
        is_open = session is not None and session["revoked_at"] is None
        asked = [each for each in found.asked if each.what == "refresh" and each.value == refreshed.session_id]
        if refreshed.code == "refresh_token_reused" and asked and asked[-1].is_in_doubt:
            continue  # the phone never got the next token, and the grace time for the old token has passed
        if is_open != (refreshed.status == 200):
            about = None if session is None else str(session["user_id"])
            state = "open" if is_open else "over"
            yield Fault(
                about, f"the session {refreshed.session_id} is {state}, its token: {refreshed.status} {refreshed.code}"
            )


def no_browser_outlives_its_login(found: Found) -> Iterator[Fault]:
    """Check that browsers don't log in banned, leaving or erased users.

    A browser must also not log in after an end that came after its login.
    """
    users = {str(row["id"]): row for row in found.tables["users"]}
    for person, user_id in found.silent.items():
        user = users.get(user_id)
        if user is None or user["status"] != "active" or user["erase_at"] is not None:
            yield Fault(user_id, f"the browser of {person} goes on for who may not come in")
        made = [each for each in found.asked if each.what == "log in in a browser" and each.person == person]
        for end in found.asked:
            is_end = end.what in ENDS_OF_BROWSERS and end.is_done and end.user_id == user_id
            if is_end and not is_joined(found, user_id) and all(login.precedes(end) for login in made):
                yield Fault(user_id, f"the browser of {person} goes on after {end}")


# 5. Every row has an owner.

OWNERLESS: Final = {
    "events": "the trail remembers who is gone",
    "erasures": "what is left of who is gone, until it is erased",
}
"""Tables whose rows may name users who are gone, each with the reason."""


def everything_has_an_owner(found: Found) -> Iterator[Fault]:
    """Check that no row names a user, an identity or a session that is gone."""
    ids = {row["id"] for row in found.tables["users"]} | {row["id"] for row in found.tables["former_users"]}
    identities = {(row["app_id"], row["openid"]): row["user_id"] for row in found.tables["identities"]}
    sessions = {row["id"] for row in found.tables["sessions"]}
    for name in sorted(OF_PEOPLE.keys() - OWNERLESS.keys()):
        for row in found.tables[name]:
            if row.get("user_id") is not None and row["user_id"] not in ids:
                yield Fault(str(row["user_id"]), f"is gone, and {name} has a row of it")
            identity = (row.get("app_id"), row.get("openid"))
            if identity[1] is not None and identity not in identities:
                yield Fault(str(row.get("user_id")), f"{name} has a row of the identity {identity}, which is gone")
            elif identity[1] is not None and row.get("user_id", identities[identity]) != identities[identity]:
                yield Fault(str(row["user_id"]), f"{name} has a row of the identity {identity}, which is another's")
            # A login to a site stores the session that it opened, and is kept even if this session is gone.
            if name != "site_logins" and row.get("session_id") is not None and row["session_id"] not in sessions:
                yield Fault(None, f"{name} has a row of a session that is gone")


# 6. An outage causes no faults.

NO_FAULTS: Final = ("retry_queued", "unionid_ignored")
"""Events that are logged as errors for operators but are not faults.

The first one reports work that is done later, unless the process is killed first. The second one reports an impossible
response from WeChat.
"""


def no_faults(found: Found) -> Iterator[Fault]:
    """Check that there is no response with 500 and no logged fault, whatever fails around the service."""
    for asked in found.asked:
        if asked.status == 500:
            yield Fault(asked.user_id or asked.person, f"500: {asked}")
    for line in found.lines:
        is_fault = line.get("level") in ("error", "critical", "unreadable") or "exception" in line
        if is_fault and line.get("event") not in NO_FAULTS:
            yield Fault(line.get("user_id"), f"logged: {line}")


ENDS_OF_USERS: Final = ("erase", "withdraw everything")
ENDS_OF_BROWSERS: Final = ("ban", "leave", "erase", "end sessions", "sign out elsewhere", "sign out of the browser")
OF_ANYBODY: Final = ("log out", "withdraw in WeChat", "withdraw everything", "sign out of the browser")
"""Requests that are acknowledged even if the user is gone."""
BY_ADMINISTRATORS: Final = tuple(step.replace("_", " ") for step in BY_STAFF)
READS: Final = ("export", "export user", "claim", "start a scan")
"""Requests that don't change anything."""
CHECKS: Final[Sequence[Check]] = (
    rebuilt_from_the_feed,
    in_order,
    one_user_each,
    one_user_for_a_person,
    nothing_acknowledged_is_lost,
    nobody_is_in_who_may_not_be,
    no_browser_outlives_its_login,
    everything_has_an_owner,
    no_faults,
)


def check(found: Found) -> list[Fault]:
    """Return the faults that all checks find."""
    return [fault for each in CHECKS for fault in each(found)]


def history_of(found: Found, about: str | None) -> str:
    """Return the requests and events that concern a user, or users who were merged with them."""
    group(found)
    own = {about} | {asked.user_id for asked in found.asked if asked.person == about}
    numbers = {found.group_of.get(user_id or "") for user_id in own} - {None}
    ids = {user_id for user_id, its in found.group_of.items() if its in numbers} | {about}
    into = {asked.value for asked in found.asked if asked.what == "merge" and asked.user_id in ids}
    ids |= into  # refused merges also name such users
    people = {asked.person for asked in found.asked if asked.user_id in ids} | {about}
    asked = [
        f"  {each}"
        for each in found.asked
        if (each.user_id in ids or (each.person in people and not each.user_id))
        and each.may_be_done
        and each.what not in READS
    ]
    events = [
        f"  {event['at']} {event['type']} {event['user_id']} by {event['actor']} {event['data'] or ''}"
        for event in found.trail
        if event["user_id"] in ids
    ]
    return "\n".join(["asked:", *asked, "recorded:", *events])


def _consents_of(row: Row) -> dict[str, str]:
    return json.loads(row["consents"] or "{}")
