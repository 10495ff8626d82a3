"""Draws the requests of a history, which many people send. The same seed always draws the same requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

PEOPLE: Final = tuple(f"person-{number}" for number in range(10))
NUMBERS: Final = tuple(f"1380013800{number}" for number in range(4))
"""The phone numbers, of which there are fewer than people, so that people take each other's numbers."""
DOCUMENTS: Final = {"privacy": "1", "terms": "3"}
POLICIES: Final = ("move", "refuse", "share", "link")
"""The values of `PHONE_POLICY`."""
LIKELY: Final = {
    "log_in": 30,
    "refresh": 14,
    "log_out": 3,
    "sign_out_elsewhere": 3,
    "change_name": 10,
    "give_consent": 6,
    "withdraw_consent": 4,
    "bind_number": 8,
    "remove_number": 3,
    "leave": 3,
    "log_in_to_a_site": 5,
    "refresh_a_site": 3,
    "log_in_in_a_browser": 8,
    "sign_out_of_the_browser": 2,
    "export": 2,
}
"""The weight with which a person's next step is drawn."""
LIKELY_BY_STAFF: Final = {
    "ban": 14,
    "unban": 16,
    "give_roles": 8,
    "merge": 8,
    "split": 8,
    "erase": 3,
    "keep": 5,
    "clear_number": 3,
    "end_sessions": 5,
    "export_user": 2,
}
STEPS_OF_A_PERSON: Final = 14
STEPS_OF_AN_ADMINISTRATOR: Final = 22

Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Step:
    """The next step of a person or an administrator. `what` names a method of `Town`."""

    what: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure that begins after this many responses. `what` names a method of `Town`."""

    after: int
    what: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a whole history."""

    seed: int
    phone_policy: str
    grace_days: int
    """The value of `ERASURE_GRACE_DAYS`."""
    steps: Mapping[str, Sequence[Step]]
    """The steps of each participant in their order. All participants act at the same time."""
    faults: Sequence[Fault]


def draw(seed: int) -> Plan:
    """Return the plan of the history with this seed."""
    random = Random(seed)
    steps: dict[str, list[Step]] = {}
    for person in PEOPLE:
        for phone in (1, 2):  # a person with two phones can do two things at once
            steps[f"{person}'s phone {phone}"] = [_step_of_a_person(random, person) for _ in range(STEPS_OF_A_PERSON)]
    for name in ("administrator 1", "administrator 2"):
        steps[name] = [_step_of_an_administrator(random) for _ in range(STEPS_OF_AN_ADMINISTRATOR)]
    steps["WeChat"] = [_step_of_wechat(random) for _ in range(10)]
    requests = sum(map(len, steps.values()))
    faults = [
        Fault(random.randrange(requests * 9 // 10), what, arguments)
        for what, arguments in (
            ("kill_a_replica", {"replica": 0}),
            ("kill_a_replica", {"replica": 1}),
            ("crash_the_database", {}),
            ("crash_the_database", {}),
            ("end_connections", {}),
            *(("trouble_wechat", _trouble(random)) for _ in range(6)),
            # The first seeds, which scripts/test runs, don't include this fault. It is slow, because a user who has
            # left is erased up to twenty seconds later.
            *(("let_days_pass", {}) for _ in range(2) if seed % 4 == 0),
        )
    ]
    grace_days = 7 if seed % 4 == 0 else random.choice([0, 7])
    return Plan(seed, random.choice(POLICIES), grace_days, steps, sorted(faults, key=lambda fault: fault.after))


def _step_of_a_person(random: Random, person: str) -> Step:
    given: dict[str, object] = {"person": person, "app": random.randrange(2), "replica": random.randrange(2)}
    [what] = random.choices(list(LIKELY), list(LIKELY.values()))
    match what:
        case "log_in":
            given["has_unionid"] = random.random() < 0.6
            given["number"] = random.choice(NUMBERS) if random.random() < 0.3 else None
            given["consents"] = random.random() < 0.3
            given["is_named"] = random.random() < 0.2
            given["stays"] = random.random() < 0.3
        case "refresh":
            given["how"] = random.choice(["once", "once", "twice at once", "again"])
        case "bind_number":
            given["number"] = random.choice(NUMBERS)
        case "give_consent" | "withdraw_consent":
            given["document"] = random.choice(sorted(DOCUMENTS))
    return Step(what, given)


def _step_of_an_administrator(random: Random) -> Step:
    one, other = random.sample(PEOPLE, 2)
    [what] = random.choices(list(LIKELY_BY_STAFF), list(LIKELY_BY_STAFF.values()))
    given: dict[str, object] = {"person": one, "replica": random.randrange(2)}
    if what == "merge":
        given["into"] = other
    elif what == "split":
        given["app"] = random.randrange(2)
    return Step(what, given)


def _step_of_wechat(random: Random) -> Step:
    given = {"person": random.choice(PEOPLE), "app": random.randrange(2), "replica": random.randrange(2)}
    return Step("push", {**given, "withdrawn": random.choice(["nickname", "phone", "phone", "everything"])})


def _trouble(random: Random) -> Arguments:
    kind: dict[str, object] = random.choice(
        [{"slow": 0.5}, {"slow": 1}, {"status": 502}, {"drop": True}, {"errcode": -1}, {"cut_off": True}]
    )
    api = random.choice(["code2session", "code2session", "getuserphonenumber", "stable_token"])
    spends = {} if "slow" in kind else {"work_is_done": random.random() < 0.5}
    return {"api": api, "times": random.randint(1, 4), **kind, **spends}
