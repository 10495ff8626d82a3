"""With `or_offline`, a token is admitted only while wxauth is away, and never because this process is busy."""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from typing import Any, Optional

import pytest

from tests.clock import PATIENCE
from tests.guard.asking import NOT_REACHED, guard_at, identified, outcome_of, problem
from tests.guard.fakes import Timer
from tests.sweeps import Sweep
from tests.upstream import Behaviour, Upstream, abort, after, answer, hang, in_pieces, raw, reset
from wxauth_guard import BearerGuard
from wxauth_guard.current import MAX_ASKED, MAX_WAITING
from wxauth_guard.testing import TestIssuer

KEYS = "/.well-known/jwks.json"
ADMITTED, REFUSED = ("", False), (NOT_REACHED, None)
ENDED = problem("invalid_token", "401 Unauthorized")
AWAY_STATUSES = {status: answer(b"", status=f"{status} x") for status in ("502", "503", "504")}
OTHER_STATUSES = {
    status: answer(b"", status=f"{status} x")
    for status in (
        "201",
        "204",
        "301",
        "304",
        "307",
        "400",
        "404",
        "405",
        "407",
        "418",
        "429",
        "431",
        "500",
        "501",
        "505",
    )
}
NO_RESPONSE = {
    "an end": abort,
    "a reset": reset,
    "nothing": hang,
    "half a head": in_pieces(b"HTTP/1.1 200 OK\r\n", then=hang),
}


class Wxauth(Upstream):
    """A wxauth that behaves in one way when it is asked about a session, and in another when it is asked for keys."""

    def __init__(self, question: Behaviour, keys: Behaviour) -> None:
        super().__init__(self._choose)
        self.question, self.keys = question, keys

    async def _choose(self, writer: asyncio.StreamWriter) -> None:
        await (self.keys if self.requests[-1] == KEYS else self.question)(writer)

    @property
    def readings(self) -> int:
        return self.requests.count(KEYS)


class Asked:
    """A guard with `or_offline`, whose timer the test moves."""

    def __init__(self, wxauth: Upstream, *, timeout: float = PATIENCE, url: str = "") -> None:
        self.issuer = TestIssuer(url or wxauth.url)
        self.guard: BearerGuard = guard_at(self.issuer.issuer, self.issuer, timeout=timeout, or_offline=True).current
        self.token = self.issuer.token(roles=["clerk"])

    @property
    def timer(self) -> Timer:
        return self.guard._authority._timer  # type: ignore[union-attr]

    async def ask(self) -> tuple[str, Optional[bool]]:
        return await outcome_of(self.guard.verify(self.token))

    async def ask_in_thread(self) -> tuple[str, Optional[bool]]:
        return await outcome_of(asyncio.to_thread(self.guard.verify_sync, self.token))


async def both(wxauth: Upstream, timeout: float = PATIENCE, url: str = "") -> set[tuple[str, Optional[bool]]]:
    """Return what an event loop and a thread learn, each from a guard of its own."""
    asked = [Asked(wxauth, timeout=timeout, url=url) for _ in range(2)]
    return set(await asyncio.gather(asked[0].ask(), asked[1].ask_in_thread()))


# What counts as an outage.


async def test_a_question_without_a_response_is_an_outage_only_if_the_keys_are_away_too() -> None:
    away: dict[str, Behaviour] = {**NO_RESPONSE, **AWAY_STATUSES}
    there = {"its keys": answer({"keys": []}), "no HTTP": raw(b"SSH-2.0\r\n\r\n"), **OTHER_STATUSES}
    with Sweep() as sweep:
        for question_name, question in NO_RESPONSE.items():
            # The statuses of the keys are tried with one question each, because they don't depend on the question.
            is_first = question is abort
            for expected, responses in (
                (ADMITTED, away if is_first else NO_RESPONSE),
                (REFUSED, there if is_first else {"its keys": there["its keys"]}),
            ):
                for keys_name, keys in responses.items():
                    with sweep.case(f"{question_name}, and {keys_name} for the keys"):
                        async with Wxauth(question, keys) as wxauth:
                            for timeout in (0.3, *[3] * 9):  # until this process is in time on a busy machine
                                readings = wxauth.readings
                                outcomes = await both(wxauth, timeout)
                                if outcomes == {expected} and wxauth.readings >= readings + 2:
                                    break
                            assert outcomes == {expected}
                            assert wxauth.readings >= readings + 2


async def test_a_response_decides_without_the_keys() -> None:
    with Sweep() as sweep:
        for keys in (abort, answer({"keys": []})):
            for status, question in {**AWAY_STATUSES, **OTHER_STATUSES}.items():
                with sweep.case(status):
                    async with Wxauth(question, keys) as wxauth:
                        assert await both(wxauth) == {ADMITTED if status in AWAY_STATUSES else REFUSED}
                        assert wxauth.readings == 0


async def test_the_keys_are_asked_for_once_without_a_token_for_all_questions() -> None:
    async with Wxauth(abort, AWAY_STATUSES["503"]) as wxauth:
        asked = Asked(wxauth)
        outcomes = await asyncio.gather(*(ask() for _ in range(5) for ask in (asked.ask, asked.ask_in_thread)))
        assert outcomes == [ADMITTED] * 10
        (head,) = [head for head in wxauth.heads if KEYS.encode() in head.split(b"\r\n")[0]]
        assert b"authorization" not in head.lower()


async def test_a_guard_that_refuses_during_an_outage_never_asks_for_the_keys() -> None:
    async with Wxauth(abort, abort) as wxauth:
        issuer = TestIssuer(wxauth.url)
        assert await outcome_of(guard_at(wxauth.url, issuer).current.verify(issuer.token())) == REFUSED
        assert wxauth.readings == 0


# How long a finding counts.


async def test_an_outage_admits_without_a_question_for_one_second() -> None:
    async with Wxauth(abort, abort) as wxauth:
        asked = Asked(wxauth)
        assert await asked.ask() == ADMITTED
        wxauth.question = ENDED
        questions = len(wxauth.requests)
        asked.timer.seconds += 1
        assert {await asked.ask(), await asked.ask_in_thread()} == {ADMITTED}
        assert len(wxauth.requests) == questions
        asked.timer.seconds += 0.01
        assert {await asked.ask(), await asked.ask_in_thread()} == {("session_revoked", None)}


async def test_the_keys_are_asked_for_once_a_second() -> None:
    async with Wxauth(abort, answer({"keys": []})) as wxauth:
        asked = Asked(wxauth)
        for _ in range(3):
            assert await asked.ask() == REFUSED
        wxauth.keys = AWAY_STATUSES["502"]
        asked.timer.seconds += 0.99
        assert (await asked.ask(), wxauth.readings) == (REFUSED, 1)
        asked.timer.seconds += 0.01
        assert (await asked.ask(), wxauth.readings) == (ADMITTED, 2)


# What this process delays.


class Full:
    """A behaviour that holds back all responses, and tells when as many questions have arrived as may be asked."""

    def __init__(self) -> None:
        self.is_reached, self.gate = asyncio.Event(), asyncio.Event()
        self._arrived = 0

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self._arrived += 1
        if self._arrived == MAX_ASKED:
            self.is_reached.set()
        await after(self.gate, identified())(writer)


@pytest.mark.slow
async def test_what_exceeds_the_slots_waits_then_is_refused() -> None:
    full = Full()
    async with Wxauth(full, abort) as wxauth:
        asked = Asked(wxauth)
        waiting = [asyncio.create_task(asked.ask()) for _ in range(MAX_ASKED + MAX_WAITING)]
        await asyncio.wait_for(full.is_reached.wait(), PATIENCE)
        assert {await asked.ask(), await asked.ask_in_thread()} == {REFUSED}
        asked.timer.seconds += PATIENCE + 0.1  # those that wait can no longer begin in time
        full.gate.set()
        outcomes = await asyncio.gather(*waiting)
        assert (outcomes.count(("", True)), outcomes.count(REFUSED)) == (MAX_ASKED, MAX_WAITING)
        assert len(wxauth.requests) == MAX_ASKED
        assert await asked.ask() == ("", True)


async def test_a_question_that_cannot_begin_is_given_up_before_its_turn() -> None:
    full = Full()
    async with Wxauth(full, abort) as wxauth:
        asked = Asked(wxauth)
        asking = [asyncio.create_task(asked.ask()) for _ in range(MAX_ASKED)]
        await asyncio.wait_for(full.is_reached.wait(), PATIENCE)
        asked.guard._authority._begin_timeout = 0.05  # type: ignore[union-attr]
        assert {await asked.ask(), await asked.ask_in_thread()} == {REFUSED}
        full.gate.set()
        assert set(await asyncio.gather(*asking)) == {("", True)}


def late(timer: Timer, seconds: float, then: Behaviour) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        timer.seconds += seconds
        await then(writer)

    return behave


async def test_a_process_that_is_late_tells_nothing_about_wxauth() -> None:
    with Sweep() as sweep:
        for name, of_question, of_keys, expected in (
            ("in time", 2.4, 0.4, ADMITTED),
            ("a late end of the question", 2.6, 0.0, REFUSED),
            ("a late end of the keys", 0.0, 0.8, REFUSED),
        ):
            for ask in (Asked.ask, Asked.ask_in_thread):
                async with Wxauth(abort, abort) as wxauth:
                    asked = Asked(wxauth, timeout=2)
                    # Each request is repeated once, because the connection may have been idle.
                    wxauth.question = late(asked.timer, of_question / 2, abort)
                    wxauth.keys = late(asked.timer, of_keys / 2, abort)
                    with sweep.case(f"{name}, {ask.__name__}"):
                        assert await ask(asked) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *(
            (number, ADMITTED)
            for number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)
        ),
        *(
            (number, REFUSED)
            for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EPERM)
        ),
    ],
)
async def test_a_lack_of_this_machines_resources_is_no_outage(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: Any
) -> None:
    def connect(*_: object, **_options: object) -> None:
        raise OSError(number, "no")

    async with Wxauth(hang, hang) as wxauth:
        monkeypatch.setattr("socket.create_connection", connect)
        assert await both(wxauth) == {expected}


Resolve = Callable[..., Any]
real_resolve: Resolve = socket.getaddrinfo


def unknown(*_: object, **_options: object) -> None:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


async def test_a_name_that_cannot_be_resolved_is_an_outage_only_if_this_process_resolves_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = threading.Event()

    def never(*_: object, **_options: object) -> None:
        end.wait(PATIENCE)
        unknown()

    def slowly(asked: Asked) -> Resolve:
        def resolve(*arguments: Any, **options: Any) -> Any:
            asked.timer.seconds += 0.6
            return real_resolve(*arguments, **options)

        return resolve

    with Sweep() as sweep:
        async with Wxauth(hang, hang) as wxauth:
            for name, of_wxauth, of_others, expected in (
                ("an unknown name", unknown, None, ADMITTED),
                ("a name server that does not respond", never, None, ADMITTED),
                ("no file descriptor for any name", unknown, unknown, REFUSED),
                ("threads that are busy with other names", never, slowly, REFUSED),
            ):
                for ask in (Asked.ask, Asked.ask_in_thread):
                    with sweep.case(f"{name}, {ask.__name__}"):
                        asked = Asked(wxauth, timeout=0.3, url="https://auth.test")
                        asked.guard._authority._begin_timeout = 0.3  # type: ignore[union-attr]
                        other = slowly(asked) if of_others is slowly else of_others or real_resolve

                        def resolve(
                            host: str, *more: Any, of: Resolve = of_wxauth, or_: Any = other, **named: Any
                        ) -> Any:
                            return (of if host == "auth.test" else or_)(host, *more, **named)

                        monkeypatch.setattr("socket.getaddrinfo", resolve)
                        assert await ask(asked) == expected
                        monkeypatch.undo()
            end.set()
