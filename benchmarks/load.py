"""A cheap load generator with N kept-alive connections, each of which has one request in progress.

It runs as a process: `python -m benchmarks.load PLAN`. PLAN and result are JSON. It prints `ready` when all connections
are open, starts after a line on standard input, and checks every response. A wrong response ends it.
"""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from time import perf_counter
from typing import Literal, cast

import uvloop

from benchmarks.standin import code_for, openid_of

Kind = Literal["login", "guarded", "refresh"]

NEW_USER_EVERY = 5
"""The number of logins for each one that is a person's first."""

_ANSWER_TIMEOUT = 60.0
FIRST_ADDRESS = int(IPv4Address("10.0.0.0"))
HEAD = b"Host: 127.0.0.1\r\nUser-Agent: Mozilla/5.0 (iPhone) MicroMessenger/8.0.50\r\n"


@dataclass(frozen=True)
class Plan:
    """The load to generate. No request begins after `seconds`."""

    kind: Kind
    port: int
    connections: int
    requests: int
    seconds: float
    known_people: int
    """The number of people who have logged in before, numbered from 0. If it is 0, every person is new."""
    stride: int
    """The distance from one person to the next. A large distance leaves no person in PostgreSQL's cache."""
    first_number: int
    """The number of the first code, so that no code is used twice."""


@dataclass(frozen=True)
class Result:
    """The result of a run."""

    finished: int
    people: int
    """The number of different people."""
    new_people: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Holder:
    """A person with the tokens from their login."""

    person: int
    access_token: bytes = b""
    refresh_token: bytes = b""


class WrongAnswer(Exception):
    """The service gave a wrong answer."""


class Load:
    """The requests of one run, each sent by the next free connection."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._begun = 0
        self._ends_at = 0.0
        self._people: set[int] = set()
        self._new_people = 0
        self._latencies: list[float] = []

    async def run(self) -> Result:
        """Connect, wait for the start signal, and send."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            connections = [
                (await loop.create_connection(Connection, "127.0.0.1", self._plan.port))[1]
                for _ in range(self._plan.connections)
            ]
            holders = await asyncio.gather(*(self._holder(*pair) for pair in enumerate(connections)))
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        started = perf_counter()
        self._ends_at = started + self._plan.seconds
        async with asyncio.timeout(self._plan.seconds + _ANSWER_TIMEOUT):
            sending = {"login": self._log_in_again, "guarded": self._call_again, "refresh": self._refresh_again}[
                self._plan.kind
            ]
            await asyncio.gather(*(sending(*each) for each in zip(connections, holders, strict=True)))
        seconds = perf_counter() - started
        latencies = sorted(self._latencies)
        return Result(
            finished=len(latencies),
            people=len(self._people),
            new_people=self._new_people,
            seconds=seconds,
            p50_ms=latencies[len(latencies) // 2] * 1000,
            p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
        )

    async def _holder(self, position: int, connection: "Connection") -> "Holder":
        """Log a person in before the measurement, and return them with their tokens."""
        if self._plan.kind == "login":
            return Holder(position)
        body = await connection.ask(login(position, code_for(position, self._plan.first_number + position)))
        tokens = json.loads(body)
        return Holder(position, tokens["access_token"].encode(), tokens.get("refresh_token", "").encode())

    async def _log_in_again(self, connection: "Connection", _: "Holder") -> None:
        while (number := self._next()) is not None:
            person = self._person(number)
            self._people.add(person)
            body = await self._timed(connection, login(person, code_for(person, self._plan.first_number + number)))
            if b'"access_token":"' not in body:
                raise WrongAnswer(f"no token in {body[:200]!r}")

    async def _call_again(self, connection: "Connection", holder: "Holder") -> None:
        request = b"GET /v1/me HTTP/1.1\r\n%bAuthorization: Bearer %b\r\n\r\n" % (HEAD, holder.access_token)
        openid = openid_of(holder.person)
        while self._next() is not None:
            if openid not in (body := await self._timed(connection, request)):
                raise WrongAnswer(f"not this person: {body[:200]!r}")

    async def _refresh_again(self, connection: "Connection", holder: "Holder") -> None:
        token, openid = holder.refresh_token, openid_of(holder.person)
        request = post(b"/v1/refresh", b'{"refresh_token":"%b"}' % token)
        while self._next() is not None:
            body = await self._timed(connection, request)
            successor = body.partition(b'"refresh_token":"')[2].partition(b'"')[0]
            if len(successor) != len(token) or successor == token or b'"access_token":"' not in body:
                raise WrongAnswer(f"no new tokens in {body[:200]!r}")
            if openid not in body:
                raise WrongAnswer(f"not this person: {body[:200]!r}")
            request, token = request.replace(token, successor), successor

    def _next(self) -> int | None:
        if self._begun >= self._plan.requests or perf_counter() >= self._ends_at:
            return None
        self._begun += 1
        return self._begun - 1

    def _person(self, number: int) -> int:
        known = self._plan.known_people
        if known and (number + 1) % NEW_USER_EVERY:
            return number * self._plan.stride % known
        self._new_people += 1
        return known + self._new_people - 1

    async def _timed(self, connection: "Connection", request: bytes) -> bytes:
        sent = perf_counter()
        body = await connection.ask(request)
        self._latencies.append(perf_counter() - sent)
        return body


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, with its status line, fields and body."""

    head: bytes
    body: bytes

    @property
    def status(self) -> bytes:
        return self.head[9:12]


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self._unread = b""
        self._answer: asyncio.Future[Answer] | None = None
        self._loop = asyncio.get_running_loop()

    def send(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a request, and return the response, whatever its status."""
        self._answer = self._loop.create_future()
        self._transport.write(request)
        return self._answer

    async def ask(self, request: bytes) -> bytes:
        """Send a request, and return the body of the response. Raises: WrongAnswer, unless its status is 200."""
        answer = await self.send(request)
        if answer.status != b"200":
            raise WrongAnswer(f"{answer.head[:12].decode()}: {answer.body[:300]!r}")
        return answer.body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, end, body = self._unread.partition(b"\r\n\r\n")
        if not end or self._answer is None or self._answer.done():
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._unread = b""
        self._answer.set_result(Answer(head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WrongAnswer("the connection was closed"))


def login(person: int, code: bytes) -> bytes:
    # The request comes from the person's own address, forwarded as by a reverse proxy, because logins are limited by
    # address.
    address = IPv4Address(FIRST_ADDRESS + person).compressed.encode()
    return post(b"/v1/login", b'{"code":"%b"}' % code, b"X-Forwarded-For: %b\r\n" % address)


def post(path: bytes, body: bytes, more: bytes = b"", content_type: bytes = b"application/json") -> bytes:
    head = b"POST %b HTTP/1.1\r\n%b%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path, HEAD, more, content_type, len(body)) + body


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(uvloop.run(Load(Plan(**json.loads(sys.argv[1]))).run()))))
    except WrongAnswer as exc:
        sys.exit(f"wrong answer: {exc}")
