"""Several guards in a process with gevent, eventlet or threads can read their keys, and ask, at the first requests."""

import asyncio
import json
import sys

import pytest

from tests.clock import PATIENCE
from tests.guard.fakes import in_one_document
from tests.upstream import Upstream
from wxauth_guard.testing import USER_ID, TestIssuer

ASKING = """
import json, sys
kind, url, token, patience = sys.argv[1:]
if kind == "gevent":
    from gevent import monkey
    monkey.patch_all()
elif kind == "eventlet":
    import eventlet
    eventlet.monkey_patch()
import threading
from wxauth_guard import BearerGuard
guards, found = [BearerGuard("https://auth.test", internal_url=url) for _ in range(3)], []
for guard in guards:
    guard._authority_in_use()._begin_timeout = float(patience)
def ask(number):
    try:
        found.append(guards[number % 3].current.verify_sync(token).is_current)
    except Exception as refusal:
        found.append(str(refusal))
threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
for act in ("start", "join"):
    for thread in threads:
        getattr(thread, act)()
print(json.dumps(found))
"""


@pytest.mark.process
@pytest.mark.parametrize("kind", ["gevent", "eventlet", "threads"])
async def test_no_first_request_of_several_guards_fails(kind: str) -> None:
    if kind != "threads":
        pytest.importorskip(kind)  # the environments with only the guard have neither
    issuer = TestIssuer()
    async with Upstream(in_one_document(issuer.key, headers=f"X-Auth-User-Id: {USER_ID}\r\n")) as server:
        command = (sys.executable, "-W", "ignore", "-c", ASKING, kind, server.url, issuer.token(), str(PATIENCE))
        asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed, _ = await asyncio.wait_for(asking.communicate(), PATIENCE)
    assert json.loads(printed) == [True] * 24
