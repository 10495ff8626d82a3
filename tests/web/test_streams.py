"""Compares the requests that wxauth sees in a stream, however it is cut, with those that h11 sees."""

import io
import re
from collections.abc import Awaitable, Callable
from http import HTTPMethod
from random import Random

import pytest
from pydantic_core import from_json

from tests.web.streams import LENGTHS, Generator, Request, Seen, Wxauth, by_h11, pieces
from wxauth.web.edge import MAX_FIELDS
from wxauth.web.http_protocol import MAX_WAITING

Compare = Callable[[bytes, list[bytes], Random], Awaitable[str | None]]

ODD_TARGET = rb"[A-Z]+ +(?!/|\* |http://[a-z])"
ODD_EXTENSION = rb"\n[0-9A-Fa-f]+;(?!a(=b)?\r\n)"
CLOSING_TRAILER = rb"(?i)\r\n0[^\r\n]*\r\n([^\r\n]+\r\n)*(proxy-)?connection: close"
TWO_LENGTHS = rb"(?is)\n(content-length|transfer-encoding):.*\n(content-length|transfer-encoding):"
"""Two fields that announce a body, of which one may be a trailer."""


def contains(pattern: bytes) -> Callable[[Request, bytes], bool]:
    return lambda _, stream: re.search(pattern, stream) is not None


MAY_BE_REFUSED: dict[str, Callable[[Request, bytes], bool]] = {
    # httptools
    "Invalid method encountered": lambda request, _: request.method not in set(HTTPMethod),
    "Expected space after method": lambda request, _: request.method not in set(HTTPMethod),
    "Expected HTTP/2 Connection Preface": lambda request, _: request.method == "PRI",
    "Pause on PRI/Upgrade": lambda request, _: request.method == "PRI",
    "Invalid HTTP version": contains(rb" HTTP/(?!1\.[01]\r)"),
    "Expected CRLF after version": contains(rb" HTTP/\d\.\d\n"),
    "Unexpected char in url schema": contains(ODD_TARGET),
    "Unexpected start char in url": contains(ODD_TARGET),
    "invalid url b'http:///b'": contains(b" http:///b "),
    "Invalid characters in url": contains(ODD_TARGET),
    "Invalid header field char": contains(rb"[^\r]\n"),
    "Invalid header value char": contains(rb":\s*[\x01-\x08\x0e-\x1f\x7f]|[^\r]\n|\r\n[ \t]"),
    "Unexpected whitespace after header value": contains(rb"\r?\n[ \t]"),
    "Missing expected CR after header value": contains(rb"[^\r]\n"),
    "Content-Length can't be present with Transfer-Encoding": contains(TWO_LENGTHS),
    "Transfer-Encoding can't be present with Content-Length": contains(TWO_LENGTHS),
    "Duplicate Content-Length": contains(rb"(?is)content-length.*content-length"),
    "Invalid character in Content-Length": contains(rb"(?i)content-length:\s*\d+ *,"),
    "Content-Length overflow": contains(b"18446744073709551616"),
    "Invalid `Transfer-Encoding` header value": contains(TWO_LENGTHS),
    "Invalid character in chunk size": contains(rb"\n[0-9A-Fa-f]+[ \t]"),
    "Expected LF after chunk size": contains(rb"\n[0-9A-Fa-f]+[^\n]*\r[^\n]"),
    "Invalid character in chunk extensions": contains(ODD_EXTENSION),
    "Invalid character in chunk extensions name": contains(ODD_EXTENSION),
    "Invalid character in chunk extensions value": contains(ODD_EXTENSION),
    # our protocol and the edge
    "the method must not be CONNECT": lambda request, _: request.method == "CONNECT",
    "a request target must have no fragment": lambda request, _: b"#" in request.target,
    "too many requests at once": lambda _, stream: stream.count(b" HTTP/1.1\r\n") > 1 + MAX_WAITING,
    "too many header fields": lambda request, _: len(request.fields) > MAX_FIELDS,
    "a request must have at most 128 headers": lambda request, _: len(request.fields) > MAX_FIELDS,
    "the version of a request must be HTTP/1.1 or HTTP/1.0": contains(rb" HTTP/(?!1\.[01]\r)"),
}
"""What wxauth may refuse although h11 accepts it: the reason, and what must be in the request or its stream."""


def closes(request: Request, stream: bytes) -> bool:
    """Tell whether wxauth closes the connection after this request, although h11 would not."""
    fields = {name: value.lower() for name, value in request.fields}
    was_not_asked_for_its_body = fields.get(b"expect") == b"100-continue" and request.body is None
    # httptools reads these two as `Connection` in the head.
    closes = b"proxy-connection" in fields or re.search(CLOSING_TRAILER, stream) is not None
    return was_not_asked_for_its_body or closes


def difference(stream: bytes, seen: Seen, expected: Seen, reasons: Callable[[], list[str]]) -> str | None:
    """Return how wxauth differs from h11, or None."""
    number = len(seen.requests)
    if seen.requests != expected.requests[:number]:
        return "another request"
    if len(seen.responses) > len(expected.requests) + 1:
        return "a response more"
    if expected.is_refused and re.search(rb"PRI [^\r\n]+\r\n[^\n]*\r?\n?$", stream):
        return None  # httptools waits for the rest of HTTP/2's preface, until the time limit
    if number == len(expected.requests):
        return "not refused" if expected.is_refused and not seen.is_closed else None
    if not seen.is_closed:
        return "a request less"
    if number and closes(seen.requests[-1], stream):
        return None
    if (
        expected.is_refused
        and expected.requests[number:] == [expected.requests[-1]]
        and expected.requests[-1].body is None
    ):
        return None  # its body is malformed, and arrived before the app could respond
    given = reasons()
    may_be = MAY_BE_REFUSED.get(given[-1]) if given else None
    is_listed = may_be is not None and may_be(expected.requests[number], stream)
    return None if is_listed and max(seen.responses) >= 400 else f"refused: {given}"


@pytest.fixture
def compare(logs: io.BytesIO) -> Compare:
    """A function that compares what wxauth and h11 see in a stream, and returns how wxauth differs."""
    wxauth = Wxauth()

    async def found(stream: bytes, reads: list[bytes], random: Random) -> str | None:
        start = logs.tell()
        seen = await wxauth.see(reads, random)
        lines = logs.getbuffer()[start:].tobytes()
        if b'"level":"error"' in lines or b'"level":"warning"' in lines:
            return lines.decode()

        def reasons() -> list[str]:
            return [line.get("reason") or line["detail"] for line in map(from_json, lines.splitlines())]

        return difference(stream, seen, by_h11(stream), reasons)

    return found


@pytest.mark.slow
async def test_however_a_stream_is_cut_wxauth_sees_the_requests_that_h11_sees(
    compare: Compare, pytestconfig: pytest.Config
) -> None:
    differences = {}
    for seed in range(pytestconfig.getoption("streams")):
        random = Random(seed)
        generator = Generator(random, oddness=random.choice((0, 0.02, 0.1)))
        stream = generator.stream()
        if found := await compare(stream, generator.cuts(stream), random):
            differences[seed] = found, stream
    assert not differences


INNER = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
LINES = b"upgrade:" + b"\nupgrade:" * (len(INNER) // 2 - 1) + b"\n" + INNER
POST = b"POST /v1/login HTTP/1.1\r\nHost: a\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(LINES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stream",
    [
        POST + LENGTH + b"\r\n" + LINES,
        POST + LENGTH + UPGRADE + b"\r\n" + LINES + INNER,
        POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LINES), LINES) + INNER,
    ],
)
async def test_lines_of_a_body_become_no_request_wherever_a_read_ends(compare: Compare, stream: bytes) -> None:
    for place in range(len(stream)):
        assert await compare(stream, pieces(stream, [place]), Random(place)) is None


@pytest.mark.parametrize("length", LENGTHS)
async def test_with_an_upgrade_a_body_has_the_length_that_the_parser_has_read(compare: Compare, length: str) -> None:
    text = length % ((len(INNER),) * length.count("%"))
    stream = POST + UPGRADE + f"Content-Length: {text}\r\n\r\n".encode("latin-1", "replace") + INNER + INNER
    assert await compare(stream, [stream], Random(0)) is None


async def test_too_many_fields_do_not_hide_the_length_of_a_body(compare: Compare) -> None:
    stream = POST + UPGRADE + b"X: a\r\n" * 200 + LENGTH + b"\r\n" + LINES + INNER
    assert await compare(stream, [stream], Random(0)) is None
