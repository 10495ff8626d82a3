"""`standardwebhooks` in Node, the official verifier; Python's is in tests/events/test_webhooks.py."""

import json
import subprocess
from collections.abc import Mapping

import pytest
from pydantic_core import to_json
from uuid_utils.compat import uuid7

from tests.programs import NODE_PATIENCE, NODE_TESTS, needs_node
from wxauth.server.core.clock import utc_now
from wxauth.server.events.webhook_rows import new_webhook_secret, shown_secret
from wxauth.server.outbound.receivers import signed_headers

pytestmark = pytest.mark.node

MESSAGE = {"type": "user.erased", "timestamp": "2026-11-20T08:00:00Z", "data": {"actor": "运营"}}


def is_accepted(secret: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    command = [needs_node(NODE_TESTS), str(NODE_TESTS / "verify_webhook.js")]
    given = json.dumps({"secret": shown_secret(secret), "headers": dict(headers), "body": body.decode()})
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=NODE_PATIENCE)
    return done.returncode == 0 and json.loads(done.stdout) == MESSAGE


def test_a_signed_message_is_accepted_and_an_altered_one_is_not() -> None:
    key, body = new_webhook_secret(), to_json(MESSAGE)
    headers = signed_headers(str(uuid7()), body, [key], now=utc_now())
    assert is_accepted(key, headers, body)
    assert not is_accepted(key, headers, body + b" ")
    assert not is_accepted(new_webhook_secret(), headers, body)


def test_while_a_secret_is_renewed_both_are_accepted() -> None:
    new, former, body = new_webhook_secret(), new_webhook_secret(), to_json(MESSAGE)
    headers = signed_headers(str(uuid7()), body, [new, former], now=utc_now())
    assert is_accepted(new, headers, body)
    assert is_accepted(former, headers, body)
