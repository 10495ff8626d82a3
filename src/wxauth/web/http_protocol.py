"""uvicorn's HTTP/1.1 protocol, with four of its gaps closed.

An upgrade that is not taken is ignored, as RFC 9110 (section 7.8) wants it: uvicorn would drop the body and read
it as the next request. Trailers are dropped (section 6.5.1): uvicorn would take them for headers. A head has a
greatest size, and so has all else that is not body. What is not HTTP is refused as a problem document too.
"""

import sys
from typing import Any, Final

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from wxauth.core.logs import get_logger
from wxauth.errors import InvalidRequest
from wxauth.problems import accepted_request_id, problem_document

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request line and its header fields, and of what comes between or behind the chunks of a body."""

log = get_logger()


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes_beside_body = 0
        self._is_in_head = True
        self._is_resuming = False
        self._data = b""

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse a head, trailers or chunk extensions that go on for too long."""
        self._data = data
        self._bytes_beside_body += len(data)
        super().data_received(data)
        if self._bytes_beside_body > MAX_HEAD and not self.transport.is_closing():
            self._refuse(InvalidRequest(f"the head of a request may have {MAX_HEAD} bytes", status=431))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(InvalidRequest(msg.rstrip(".").lower(), status=400))

    def _unsupported_upgrade_warning(self) -> None:
        # The parser has stopped behind the head, and taken the message for complete. Another one goes on with the
        # body, behind a head that says no more than how long it is.
        stopped = sys.exc_info()[1]
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        rest = self._data[stopped.args[0] :]
        framing = [
            b"%s: %s\r\n" % field for field in self.headers if field[0] in (b"content-length", b"transfer-encoding")
        ]
        self.cycle.more_body = True
        self.parser = httptools.HttpRequestParser(self)
        self._is_resuming = True
        self.data_received(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n" + rest)

    # What the parser calls. The head that resumes a body is no request of its own.

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self._is_resuming:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        if not self._is_resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer."""
        if self._is_in_head and not self._is_resuming:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._is_in_head, self._bytes_beside_body = False, 0
        if self._is_resuming:
            self._is_resuming = False
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body, whose size is the app's to judge."""
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is over; a head may follow."""
        self._is_in_head, self._bytes_beside_body = True, 0
        super().on_message_complete()

    def _refuse(self, error: InvalidRequest) -> None:
        request_id = accepted_request_id(None)
        log.info("request_refused", status=error.status, code=error.code, detail=error.detail, request_id=request_id)
        body = to_json(problem_document(error, language="en", request_id=request_id))
        head = (
            b"content-type: application/problem+json\r\ncache-control: no-store\r\nconnection: close\r\n"
            b"content-length: %d\r\nx-request-id: %s\r\n\r\n" % (len(body), request_id.encode())
        )
        self.transport.write(STATUS_LINE[error.status] + head + body)
        self.transport.close()
