"""The guards of all languages say the same of each forged token as the guard for Python."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs import ROOT
from tests.foreign.conftest import Issuer
from tests.foreign.corpus import SCOPED
from tests.foreign.php_packages import autoload
from tests.guard.hostile import EXPIRED, FOR_GUARDS, GOOD, HOSTILE, Forgery
from tests.programs import NODE_PATIENCE, needs, needs_node, output_of
from tests.sweeps import Sweep
from wxauth_guard import BearerGuard, WxAuthError

pytestmark = [pytest.mark.process, pytest.mark.node, pytest.mark.slow]

JUDGES = Path(__file__).with_name("judges")
TOKENS: dict[str, Forgery] = {
    **HOSTILE,
    **GOOD,
    **EXPIRED,
    **FOR_GUARDS,
    **SCOPED,
    "a line end": lambda forger: forger.token + "\n",
    "a carriage return": lambda forger: forger.token + "\r",
    "a line end within": lambda forger: forger.token[:40] + "\n" + forger.token[40:],
    "a tab": lambda forger: "\t" + forger.token,
    "roles in another order": lambda forger: forger.with_claims(roles=["staff", "clerk", "staff"]),
    "an empty openid": lambda forger: forger.with_claims(openid=""),
    "an empty jti": lambda forger: forger.with_claims(jti=""),
    "an empty client_id": lambda forger: forger.with_claims(client_id=""),
    "an empty external_id": lambda forger: forger.with_claims(external_id=""),
    "names in another case": lambda forger: forger.with_claims(ROLES=["staff"], Scope="openid", SUB="x"),
}


def python(guard: BearerGuard, token: str) -> object:
    try:
        user = guard.verify_sync(token)
    except WxAuthError as refusal:
        return refusal.code
    named = [str(user.id), str(user.session_id), user.app_id, user.openid, user.external_id]
    return [*named, [*user.roles], [*user.scope]]


def without_order(verdict: Any) -> object:
    """Python's roles and scopes are sets."""
    return verdict if isinstance(verdict, str) else [*verdict[:5], *map(set, verdict[5:])]


def command(language: str, folder: Path) -> list[str]:
    """Return the command of a judge, which takes the issuer, and reads a token in each line."""
    if language == "Node":
        return [needs_node(ROOT / "clients/node"), str(ROOT / "clients/node/test/tokens.js")]
    if language == "Java":
        files = [*(ROOT / "clients/java/guard/src/main/java/wxauth/guard").glob("*.java"), JUDGES / "Tokens.java"]
        output_of(needs("javac"), "-Xlint:-options", "--release", "8", "-d", str(folder), *map(str, files))
        return [needs("java"), "-cp", str(folder), "Tokens"]
    if language == "Go":
        program = folder / "tokens"
        module = ROOT / "tests/foreign/refunds"
        output_of(needs("go"), "build", "-C", str(module), "-o", str(program), "./tokens")
        return [str(program)]
    autoload(folder)
    (folder / "keys").mkdir(mode=0o700)
    shutil.copy(JUDGES / "tokens.php", folder)
    return [needs("php"), "tokens.php"]


@pytest.mark.parametrize("language", ["Node", "Java", "Go", "PHP"])
def test_each_guard_says_the_same_of_each_token(language: str, issuer: Issuer, tmp_path: Path) -> None:
    tokens = {name: issuer.forge(forgery) for name, forgery in TOKENS.items()}
    lines = "\n".join(base64.b64encode(f"Bearer {token}".encode()).decode() for token in tokens.values())
    done = subprocess.run(
        [*command(language, tmp_path), issuer.url],
        cwd=tmp_path,
        input=lines + "\n",
        capture_output=True,
        text=True,
        timeout=NODE_PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    guards = [BearerGuard(issuer.url, websites=websites) for websites in (False, True)]
    said: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    with Sweep() as sweep:
        for (name, token), verdict in zip(tokens.items(), said, strict=True):
            with sweep.case(name):
                expected = [python(guard, token) for guard in guards]
                assert [*map(without_order, verdict)] == [*map(without_order, expected)]
