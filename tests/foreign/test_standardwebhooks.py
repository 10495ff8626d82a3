"""`standardwebhooks`, the official verifier for Node and Python, accepts wxauth's webhooks.

The tests call it as docs/build/events.md shows.
"""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic_core import to_json
from standardwebhooks.webhooks import WebhookVerificationError
from uuid_utils.compat import uuid7

from tests.docs import block
from tests.programs import NODE_PATIENCE, NODE_TESTS, needs_node
from wxauth.core.clock import utc_now
from wxauth.outbound.signatures import new_webhook_secret, shown_secret, signed_headers

pytestmark = pytest.mark.node

PAGE = "docs/build/events.md"
MESSAGE = json.loads(block(PAGE, '"actor": "operator"'))


def is_accepted(secret: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    node = needs_node(NODE_TESTS)
    given: dict[str, Any] = {"secret": shown_secret(secret), "headers": dict(headers), "body": body.decode()}
    code = f"const {{ secret, headers, body }} = {json.dumps(given)}\n{block(PAGE, 'new Webhook')}"
    command = [node, "--input-type=module", "-e", f"{code}console.log(JSON.stringify(message))"]
    done = subprocess.run(command, cwd=NODE_TESTS, capture_output=True, text=True, timeout=NODE_PATIENCE)
    in_node = done.returncode == 0 and json.loads(done.stdout) == MESSAGE
    try:
        exec(block(PAGE, "pip install standardwebhooks"), given)
    except WebhookVerificationError:
        assert not in_node
    else:
        assert in_node == (given["message"] == MESSAGE)
    return in_node


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
