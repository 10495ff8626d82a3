"""No sequence of requests reaches what the tables of states forbid."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Any

import httpx
import pytest

from scripts.write_states import EXPIRED, GUIDE, LOGIN_STEPS, NONE, OPEN, OVER, SESSION_STEPS, Step, written
from tests.fakes import APP, OTHER_APP
from tests.sites.browsers import Browser, House, Tab, sent
from tests.world import Admin, Body, Phone, Site, Stage, bearer, leave
from wxauth.sites.models import SiteLoginFields, Stage as Of

pytestmark = [
    pytest.mark.settings(apps=[{**APP, "max_sessions": 3}, OTHER_APP], login_rate_limit=""),
    pytest.mark.slow,
]
STEPS = 120
PEOPLE = ("alice", "bob", "carol")
States = Mapping[str, str]


def state_of_session(row: Mapping[str, Any], now: datetime) -> str:
    if row["revoked_at"] is not None:
        return row["revoked_reason"]
    return OPEN if row["expires_at"] > now else EXPIRED


def state_of_login(row: Mapping[str, Any], now: datetime) -> str:
    login = SiteLoginFields.model_construct(**{name: row[name] for name in SiteLoginFields.model_fields})
    if login.stage in (Of.REFUSED, Of.REDEEMED):
        return login.stage
    if login.stage in (Of.ASKED, Of.CLAIMED):
        return login.stage if login.scan_ends_at > now else OVER
    until = max(filter(None, (login.granted_until, login.code_expires_at)))
    return login.stage if login.openid is not None and row["is_phone_open"] and until > now else OVER


class Walk:
    """Random requests to two replicas, whose every change is compared with the tables."""

    def __init__(self, house: House, root: Admin, replicas: list[Stage], seed: int) -> None:
        self.house, self.root = house, root
        self.clients = [replica.client for replica in replicas]
        self.browsers = [Browser(replica.make_client(replica.services)) for replica in replicas]
        self.random = Random(seed)
        self.phones: list[tuple[str, Phone]] = []
        self.tabs: list[Tab] = []
        self.started: list[Body] = []
        self.scans: list[tuple[str, Phone, Tab | Body]] = []
        self.approved: list[Tab] = []
        self.codes: list[str] = []
        self.tokens: list[tuple[bool, Body]] = []  # whether they are the site's
        self.done: set[Step] = set()
        self.told: list[str] = [f"seed {seed}"]

    @property
    def client(self) -> httpx.AsyncClient:
        return self.random.choice(self.clients)

    @property
    def shop(self) -> Site:
        return replace(self.house.shop, client=self.client)

    def some(self, items: list[Any]) -> Any:
        """Return one of the newest items, or an old one."""
        return self.random.choice(items[-3:] if self.random.random() < 0.8 else items)

    def phone(self) -> Phone:
        return replace(self.some(self.phones)[1], client=self.client)

    async def log_in(self) -> None:
        person, app = self.random.choice(PEOPLE), self.random.choice((APP, OTHER_APP))
        answer = await self.house.stage.login.ask(person, at=self.client, app=app)
        if answer.is_success:
            tokens = answer.json()
            code_for = self.house.stage.wechat.code_for
            self.phones.append((person, Phone(self.client, tokens, lambda: code_for(person, app_id=app["app_id"]))))
            self.tokens.append((False, tokens))

    async def refresh(self) -> None:
        is_sites, tokens = self.some(self.tokens)
        if is_sites:
            answer = await self.shop.refresh(tokens)
        else:
            answer = await self.client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        if answer.is_success:
            self.tokens.append((is_sites, {**tokens, **answer.json()}))

    async def ask(self) -> None:
        if self.random.random() < 0.5:
            self.started.append(await self.shop.start())
        else:
            self.tabs.append(await self.browser().show())

    def browser(self) -> Browser:
        """Return the browser at one of the replicas, with its cookies."""
        browser = self.random.choice(self.browsers)
        for other in self.browsers:
            browser.client.cookies.update(other.client.cookies)
        return browser

    async def scan(self) -> None:
        shown, phone = self.some([*self.tabs[-2:], *self.started[-2:]]), self.phone()
        answer = await (shown.scanned_by(phone) if isinstance(shown, Tab) else phone.scan(shown))
        if answer.is_success:
            self.scans.append((answer.json()["id"], phone, shown))

    async def approve(self) -> None:
        await self.decide("approve")

    async def deny(self) -> None:
        await self.decide("deny")

    async def decide(self, verdict: str) -> None:
        scan_id, phone, shown = self.some(self.scans)
        phone = self.random.choice((phone, phone, phone, self.phone()))
        answer = await replace(phone, client=self.client).decide(scan_id, verdict)
        if answer.is_success and isinstance(shown, Tab):
            self.approved.append(shown)

    async def go_on(self) -> None:
        onward = await self.some([*self.tabs[-1:], *self.approved]).go_on(self.browser())
        if onward.status_code == 303 and "code" in (answer := sent(onward)):
            self.codes.append(answer["code"])

    async def redeem(self) -> None:
        if self.codes and self.random.random() < 0.6:
            answer = await self.house.redeem(self.some(self.codes), self.shop)
        else:
            answer = await self.shop.poll(self.some(self.started))
        if answer.is_success:
            self.tokens.append((True, answer.json()))

    async def sign_out(self) -> None:
        await self.client.post("/v1/logout", headers=bearer(self.some(self.phones)[1].tokens))

    async def sign_out_elsewhere(self) -> None:
        await self.phone().ask("DELETE", "/sessions")

    async def change_status(self, status: str) -> None:
        await self.root.ask("PATCH", f"/users/{self.phone().user_id}", json={"status": status})

    async def ban(self) -> None:
        await self.change_status("disabled")

    async def unban(self) -> None:
        await self.change_status("active")

    async def end(self) -> None:
        await self.root.ask("DELETE", f"/users/{self.phone().user_id}/sessions")

    async def merge(self) -> None:
        await self.root.merge(self.phone().user_id, into=self.phone().user_id)

    async def erase(self) -> None:
        phone = self.phone()
        await leave(self.client, phone.tokens, person=phone.tokens["user"]["openid"])

    async def wait(self) -> None:
        seconds = self.random.choice((1, 5, 20, 20, 70, 200, 31 * 86400))
        self.house.stage.clock.advance(seconds=seconds)
        if seconds > 800:  # the administrator's access token has expired
            self.root.answer = await self.house.stage.login("root")

    async def states(self) -> tuple[States, States]:
        rows, now = self.house.stage.rows, self.house.stage.clock()
        sessions = await rows.fetch("SELECT * FROM sessions WHERE user_id::text <> $1", self.root.id)
        logins = await rows.fetch(
            """SELECT l.*, l.claimed_session_id IS NULL OR EXISTS (SELECT FROM sessions s
                     WHERE s.id = l.claimed_session_id AND s.revoked_at IS NULL AND s.expires_at > $1) AS is_phone_open
                 FROM site_logins l""",
            now,
        )
        return (
            {str(row["id"]): state_of_session(row, now) for row in sessions},
            {str(row["id"]): state_of_login(row, now) for row in logins},
        )

    def check(self, steps: tuple[Step, ...], before: States, after: States, names: list[str]) -> None:
        """Check that each row has changed by these steps, in any order."""
        for key in before.keys() | after.keys():
            old, new = before.get(key, NONE), after.get(key, NONE)
            reached = {old}
            for _name in names:
                taken = {step for step in steps if step.before in reached and step.by in names}
                reached |= {step.after for step in taken}
            assert new in reached, f"{old} became {new}:\n" + "\n".join(self.told)
            if old != new:
                self.done |= {step for step in steps if step.before == old and step.after == new and step.by in names}

    async def go(self) -> None:
        acts: dict[str, tuple[int, list[Any], Callable[[], Awaitable[None]]]] = {
            "log in": (8, [1], self.log_in),
            "refresh": (6, self.tokens, self.refresh),
            "ask": (8, [1], self.ask),
            "scan": (14, self.phones and [*self.tabs, *self.started], self.scan),
            "approve": (14, self.phones and self.scans, self.approve),
            "deny": (2, self.phones and self.scans, self.deny),
            "go on": (12, self.tabs, self.go_on),
            "redeem": (14, self.started, self.redeem),
            "sign out": (2, self.phones, self.sign_out),
            "sign out elsewhere": (1, self.phones, self.sign_out_elsewhere),
            "ban": (1, self.phones, self.ban),
            "unban": (3, self.phones, self.unban),
            "end": (1, self.phones, self.end),
            "merge": (2, self.phones, self.merge),
            "erase": (2, self.phones, self.erase),
            "wait": (3, [1], self.wait),
        }
        possible = [name for name, (_weight, needed, _act) in acts.items() if needed]
        number = self.random.choice((1, 1, 2, 3))
        names = self.random.choices(possible, [acts[name][0] for name in possible], k=number)
        if "wait" in names:
            names = ["wait"]
        self.told.append(", ".join(names))
        before = await self.states()
        await asyncio.gather(*(acts[name][2]() for name in names))
        for steps, old, new in zip((SESSION_STEPS, LOGIN_STEPS), before, await self.states(), strict=True):
            self.check(steps, old, new, names)


@pytest.mark.parametrize("seed", range(5))
async def test_no_sequence_of_requests_makes_a_change_that_the_tables_forbid(
    house: House, root: Admin, seed: int
) -> None:
    walk = Walk(house, root, [house.stage, await house.stage.replica()], seed)
    for _step in range(STEPS):
        await walk.go()


@pytest.mark.no_database
def test_the_drawings_are_of_the_tables() -> None:
    assert written(GUIDE.read_text("utf-8")) == GUIDE.read_text("utf-8"), "run scripts/docs"
