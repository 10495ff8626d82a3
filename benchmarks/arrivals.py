"""An open load generator, whose requests become due at a steady rate, whether or not earlier ones have been answered.

It runs as a process: `python -m benchmarks.arrivals PLAN`. PLAN and result are JSON. A latency counts from the moment
at which the request was due, so that a service that stalls cannot hide it by delaying the requests behind. With a rate
of 0, all requests are due at once, and each connection always has one in progress. The process prints `ready` when all
connections are open and all people are logged in, and starts after a line on standard input. Wrong responses are
counted.
"""

import asyncio
import base64
import hashlib
import json
import re
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from time import perf_counter
from typing import Literal
from urllib.parse import urlencode

import uvloop

from benchmarks.load import FIRST_ADDRESS, HEAD, Connection, Holder, WrongAnswer, login, post
from benchmarks.standin import code_for, openid_of

Steady = Literal["first", "returning", "refresh", "me", "verify", "scan"]
"""The kinds of requests.

`first` and `returning` are logins. `scan` is the login to a site with a QR code. It consists of the page, the picture,
the phone's claim and approval, the authorization code, and the tokens.
"""

SITE = "shop"
CALLBACK = "https://shop.example.com/callback"
HOLDERS = 1000
"""The number of people who are logged in before a load that needs tokens. Each has at most one request in progress."""

_CAMERA = 1011
_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
_CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(_VERIFIER.encode()).digest()).rstrip(b"=").decode()
_AUTHORIZE = "/v1/authorize?" + urlencode(
    {
        "client_id": SITE,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid profile",
        "state": "s-1",
        "nonce": "n-1",
        "code_challenge": _CHALLENGE,
        "code_challenge_method": "S256",
    }
)
_SCENE = re.compile(rb"/v1/scans/([\w-]{22})/code")
_REQUEST_ID = re.compile(rb"/v1/authorize/([\w-]{22})/next")
_COOKIE = re.compile(rb"(?i)\r\nset-cookie: ([^;\r]+)")
_CODE = re.compile(rb"(?i)\r\nlocation: [^\r]*[?&]code=([\w-]+)")
_FORM = b"application/x-www-form-urlencoded"
_TIMEOUT = 120.0


@dataclass(frozen=True)
class Plan:
    """The load to generate."""

    kind: Steady
    port: int
    connections: int
    rate: float
    """The number of requests that become due in a second. If it is 0, all are due immediately."""
    requests: int
    known_people: int
    """The number of people who have logged in before, who are numbered from 0."""
    first_number: int
    """The number of the first code, so that no code is used twice."""
    client_secret: str
    """The secret of the site `SITE`."""


@dataclass(frozen=True)
class Result:
    """The result of a run, with latencies in milliseconds."""

    finished: int
    errors: dict[str, int]
    """The number of wrong responses, by their content."""
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    longest_ms: float


class Arrivals:
    """The requests of one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._codes = plan.first_number
        self._free: deque[Connection] = deque()
        self._waiting: deque[asyncio.Future[Connection]] = deque()
        self._holders: deque[Holder] = deque()
        self._latencies: list[float] = []
        self._errors: Counter[str] = Counter()
        basic = base64.b64encode(f"{SITE}:{plan.client_secret}".encode())
        self._site = b"Authorization: Basic %b\r\n" % basic

    async def run(self) -> Result:
        """Connect, log people in, wait for the start signal, and send."""
        loop, plan = asyncio.get_running_loop(), self._plan
        for _ in range(plan.connections):
            self._free.append((await loop.create_connection(Connection, "127.0.0.1", plan.port))[1])
        if plan.kind not in ("first", "returning"):
            await asyncio.gather(*(self._hold(person) for person in range(HOLDERS)))
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        sending: Callable[[int, Connection], Awaitable[None]] = {
            "first": self._come_first,
            "returning": self._return,
            "refresh": self._refresh,
            "me": self._me,
            "verify": self._verify,
            "scan": self._scan,
        }[plan.kind]
        started = perf_counter()
        under_way: set[asyncio.Task[None]] = set()
        for number in range(plan.requests):
            due = started + number / plan.rate if plan.rate else perf_counter()
            if (pause := due - perf_counter()) > 0:
                await asyncio.sleep(pause)
            if not plan.rate:
                connection = await self._connection()
                due = perf_counter()
            else:
                connection = None
            task = loop.create_task(self._timed(sending, number, due, connection))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        async with asyncio.timeout(_TIMEOUT):
            await asyncio.gather(*under_way)
        seconds = perf_counter() - started
        latencies = sorted(self._latencies) or [0.0]
        p50, p99, p999 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99, 0.999))
        return Result(len(self._latencies), dict(self._errors), seconds, p50, p99, p999, latencies[-1] * 1000)

    async def _timed(
        self,
        sending: Callable[[int, Connection], Awaitable[None]],
        number: int,
        due: float,
        connection: Connection | None,
    ) -> None:
        connection = connection or await self._connection()
        try:
            await sending(number, connection)
        except WrongAnswer as exc:
            self._errors[str(exc)[:80]] += 1
        else:
            self._latencies.append(perf_counter() - due)
        finally:
            self._give_back(connection)

    async def _connection(self) -> Connection:
        if self._free:
            return self._free.popleft()
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return await waiting

    def _give_back(self, connection: Connection) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(connection)
        else:
            self._free.append(connection)

    async def _hold(self, person: int) -> None:
        connection = await self._connection()
        tokens = json.loads(await connection.ask(login(person, self._code_of(person))))
        self._give_back(connection)
        self._holders.append(Holder(person, tokens["access_token"].encode(), tokens["refresh_token"].encode()))

    async def _come_first(self, number: int, connection: Connection) -> None:
        await self._log_in(self._plan.known_people + number, connection)

    async def _return(self, number: int, connection: Connection) -> None:
        # People log in in an order that leaves none of them in PostgreSQL's cache, because a prime does not divide
        # their number.
        await self._log_in(number * 7919 % self._plan.known_people, connection)

    async def _log_in(self, person: int, connection: Connection) -> None:
        body = await connection.ask(login(person, self._code_of(person)))
        if b'"access_token":"' not in body:
            raise WrongAnswer("no token")

    async def _refresh(self, _: int, connection: Connection) -> None:
        holder = self._holders.popleft()
        body = await connection.ask(post(b"/v1/refresh", b'{"refresh_token":"%b"}' % holder.refresh_token))
        successor = body.partition(b'"refresh_token":"')[2].partition(b'"')[0]
        if len(successor) != len(holder.refresh_token) or successor == holder.refresh_token:
            raise WrongAnswer("no new refresh token")
        self._holders.append(Holder(holder.person, holder.access_token, successor))

    async def _me(self, _: int, connection: Connection) -> None:
        holder = self._next_holder()
        if openid_of(holder.person) not in await connection.ask(_get(b"/v1/me", _bearer(holder))):
            raise WrongAnswer("another person")

    async def _verify(self, _: int, connection: Connection) -> None:
        holder = self._next_holder()
        answer = await connection.send(_get(b"/v1/verify", _bearer(holder)))
        if answer.status != b"200" or openid_of(holder.person) not in answer.head:
            raise WrongAnswer(answer.head[:12].decode())

    async def _scan(self, _: int, connection: Connection) -> None:
        holder = self._next_holder()
        address = _address(holder.person)
        page = await connection.send(_get(_AUTHORIZE.encode(), address))
        scene, request_id = _found(_SCENE, page.body), _found(_REQUEST_ID, page.body)
        cookie = b"%bCookie: %b\r\n" % (address, _found(_COOKIE, page.head))
        await connection.ask(_get(b"/v1/scans/%b/code" % scene, address))
        claim = b'{"scene":"%b","entry_scene":%d}' % (scene, _CAMERA)
        claimed = json.loads(await connection.ask(post(b"/v1/me/scans", claim, _bearer(holder))))
        proof = b'{"login_code":"%b"}' % self._code_of(holder.person)
        path = b"/v1/me/scans/%b/approve" % claimed["id"].encode()
        if (answer := await connection.send(post(path, proof, _bearer(holder)))).status != b"204":
            raise WrongAnswer(f"approve: {answer.body[:60]!r}")
        onward = await connection.send(_get(b"/v1/authorize/%b/next" % request_id, cookie))
        code = _found(_CODE, onward.head + b"\r\n")
        form = {
            "grant_type": "authorization_code",
            "code": code.decode(),
            "redirect_uri": CALLBACK,
            "code_verifier": _VERIFIER,
        }
        tokens = await connection.ask(post(b"/v1/token", urlencode(form).encode(), self._site, _FORM))
        if b'"id_token":"' not in tokens:
            raise WrongAnswer("no id_token")

    def _next_holder(self) -> Holder:
        self._holders.rotate(-1)
        return self._holders[-1]

    def _code_of(self, person: int) -> bytes:
        self._codes += 1
        return code_for(person, self._codes)


def _found(pattern: re.Pattern[bytes], text: bytes) -> bytes:
    if (match := pattern.search(text)) is None:
        raise WrongAnswer(f"no {pattern.pattern!r} in {text[:40]!r}")
    return match[1]


def _address(person: int) -> bytes:
    return b"X-Forwarded-For: %b\r\n" % IPv4Address(FIRST_ADDRESS + person).compressed.encode()


def _bearer(holder: Holder) -> bytes:
    return b"%bAuthorization: Bearer %b\r\n" % (_address(holder.person), holder.access_token)


def _get(target: bytes, more: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (target, HEAD, more)


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(Arrivals(Plan(**json.loads(sys.argv[1]))).run()))))
