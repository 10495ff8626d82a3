"""The guide's code for services on an older Python or Node works. It asks wxauth about each token."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.docs import block
from tests.foreign.conftest import Issuer
from tests.foreign.corpus import REFUSED
from tests.processes import free_port
from tests.programs import needs, output_of

pytestmark = [pytest.mark.process, pytest.mark.node]

PYTHON = """
import json, sys
from wxauth_user import Refused, user_of

for asked in json.load(sys.stdin):
    try:
        print(json.dumps(user_of(*asked)))
    except Refused as refused:
        print(refused.status)
"""
NODE = """
const { userOf } = require('./wxauth-user.cjs')

const answer = async (asked) => {
  console.log(JSON.stringify(await userOf(...asked).catch(({ status }) => status)))
}
JSON.parse(require('fs').readFileSync(0)).reduce((before, asked) => before.then(() => answer(asked)), Promise.resolve())
"""


def oldest_python() -> str:
    """Return Python 3.8 if it's on the path or installed by pyenv, and otherwise this Python."""
    for found in (shutil.which("python3.8"), *Path.home().glob(".pyenv/versions/3.8.*/bin/python")):
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return str(found)
    return sys.executable


Ask = Callable[..., list[Any]]


@pytest.fixture(params=["Python", "Node"])
def ask(request: pytest.FixtureRequest, tmp_path: Path) -> Ask:
    """A function that returns the claims or the status that the code returns for each of these headers and roles."""
    if request.param == "Python":
        (tmp_path / "wxauth_user.py").write_text(block("docs/build/siblings-frameworks.md", "wxauth_user.py"))
        (tmp_path / "ask.py").write_text(PYTHON)
        command = [oldest_python(), str(tmp_path / "ask.py")]
    else:
        (tmp_path / "wxauth-user.cjs").write_text(block("docs/build/siblings-frameworks.md", "wxauth-user.cjs"))
        (tmp_path / "ask.cjs").write_text(NODE)
        command = [needs("node"), str(tmp_path / "ask.cjs")]

    def asked(url: str, *headers: tuple[str | None, ...]) -> list[Any]:
        env = {**os.environ, "WXAUTH_ISSUER": url, "no_proxy": "127.0.0.1"}
        return [json.loads(line) for line in output_of(*command, input=json.dumps(headers), env=env).splitlines()]

    return asked


@contextmanager
def maintenance() -> Iterator[str]:
    """The URL of a gateway that returns 200 for every request."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<title>Maintenance</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_older_version_knows_its_caller_and_refuses_others(ask: Ask, issuer: Issuer) -> None:
    good = f"Bearer {issuer.token}"
    known, spelt, role, *refused = ask(
        issuer.url,
        (good,),
        (f"bearer {issuer.token}",),
        (good, "clerk"),
        (None,),
        ("",),
        ("Bearer",),
        ("Basic YTpi",),
        ("Bearer a.b",),
        (f"Bearer {issuer.forge(lambda forger: forger.with_claims(roles=['clerk']))}x",),
        *(
            (f"Bearer {issuer.forge(REFUSED[name])}",)
            for name in ("alg none", "aud another", "one bit off", "exp long ago")
        ),
    )
    assert known == spelt
    assert (known["iss"], known["roles"]) == (issuer.url, [])
    assert known["openid"]
    assert role == 403
    assert refused == [401] * 10


def test_an_older_version_takes_roles_as_they_are_stored_now(ask: Ask, issuer: Issuer) -> None:
    claimed = issuer.forge(lambda forger: forger.with_claims(roles=["clerk"]))
    without, demanded = ask(issuer.url, (f"Bearer {claimed}",), (f"Bearer {claimed}", "clerk"))
    assert (without["roles"], demanded) == ([], 403)


def test_an_older_version_admits_nobody_while_wxauth_is_away(ask: Ask, issuer: Issuer) -> None:
    assert ask(f"http://127.0.0.1:{free_port()}", (f"Bearer {issuer.token}",)) == [503]
    with maintenance() as url:
        assert ask(url, (f"Bearer {issuer.token}",), ("Bearer a.b.c",)) == [503, 503]
