"""The guard of each language handles an issuer that returns documents without keys, or hangs.

All guards get the same tests.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs import ROOT
from tests.foreign.jdks import UNREACHED
from tests.foreign.key_documents import BESIDE, DOCUMENTS, READ, UNREAD, Line, Publisher, publishing
from tests.foreign.php_packages import autoload
from tests.programs import NODE_PATIENCE, lacks, needs, needs_node
from tests.sweeps import Sweep
from wxauth_guard import BearerGuard, WxAuthError

pytestmark = [pytest.mark.process, pytest.mark.node, pytest.mark.slow]

JUDGES = Path(__file__).with_name("judges")
OWN = ("Python", "Python, in threads")
GUARDS = (*OWN, "Node", "Java", "Go", "PHP")


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing() as publisher:
        yield publisher


def printed(command: list[str], lines: list[Line], folder: Path, **env: str) -> list[list[str]]:
    """Run a judge, and return the words that it prints for each line.

    A judge reads the lines from standard input, or from a file. In the second case, it writes its results to another
    file.
    """
    (folder / "judged").write_text("\n".join(map(str, lines)))
    given = {**os.environ, "JUDGED": str(folder / "judged"), "no_proxy": "127.0.0.1", **env}
    with (folder / "judged").open() as stdin:
        done = subprocess.run(
            command, cwd=folder, env=given, stdin=stdin, capture_output=True, text=True, timeout=NODE_PATIENCE
        )
    if UNREACHED.search(done.stdout + done.stderr):
        lacks(f"needs packages: {(done.stdout + done.stderr)[-300:]} 未能下载依赖包")
    assert done.returncode == 0, done.stdout + done.stderr
    written = folder / "judged.out"
    said = (written.read_text() if written.exists() else done.stdout).splitlines()
    assert len(said) == len(lines), done.stdout + done.stderr
    return [line.split() for line in said]


def judged(guard: str, lines: list[Line], folder: Path, publisher: Publisher) -> list[list[str]]:
    if guard in OWN:
        return [[*map(str, asked(line, publisher, is_sync=guard != "Python"))] for line in lines]
    if guard == "Node":
        package = ROOT / "clients/node"
        return printed([needs_node(package), str(package / "test/judge.js")], lines, folder)
    if guard == "Java":
        path = f"{folder}/classes"
        files = [*(ROOT / "clients/java/guard/src/main/java/wxauth/guard").glob("*.java"), JUDGES / "Judge.java"]
        command = [needs("javac"), "-Xlint:-options", "--release", "8", "-d", path, *map(str, files)]
        subprocess.run(command, check=True, timeout=NODE_PATIENCE)
        return printed([needs("java"), "-cp", path, "Judge"], lines, folder)
    if guard == "Go":
        module = Path(shutil.copytree(ROOT / "clients/go", folder / "go"))
        shutil.copy(JUDGES / "judge_test.go", module / "wxauthguard")
        return printed([needs("go"), "test", "-C", str(module), "-run", "Judge", "./wxauthguard"], lines, folder)
    shutil.copy(JUDGES / "judge.php", folder)
    autoload(folder)
    (folder / "keys").mkdir(mode=0o700)
    return printed([needs("php"), "judge.php"], lines, folder, KEPT=str(folder / "keys"))


def asked(line: Line, publisher: Publisher, *, is_sync: bool) -> Iterator[object]:
    guard = BearerGuard(line.issuer)

    def status(token: str) -> int:
        try:
            guard.verify_sync(token) if is_sync else asyncio.run(guard.verify(token))
        except WxAuthError as refusal:
            return refusal.status
        return 200

    yield status(line.token)
    if line.issuer.endswith("/hanging"):
        with ThreadPoolExecutor(16) as threads:
            strangers = [threads.submit(status, line.stranger) for _ in range(300 if is_sync else 1)]
            yield threads.submit(status, line.token).result()
            yield publisher.is_waited_for()
            yield f"[{','.join({str(each.result()) for each in strangers})}]"
    else:
        yield status(line.stranger)
        yield status(line.token)


@pytest.mark.parametrize("guard", GUARDS)
def test_what_has_no_usable_key_is_no_document(guard: str, publisher: Publisher, tmp_path: Path) -> None:
    answers = judged(guard, publisher.lines("kept") + publisher.lines("fresh"), tmp_path, publisher)
    kept, fresh = answers[: len(DOCUMENTS)], answers[len(DOCUMENTS) :]
    with Sweep() as sweep:
        for name, then, at_first in zip(DOCUMENTS, kept, fresh, strict=True):
            with sweep.case(name, "after the key"):
                assert then == ["200", "401", "200"]
            with sweep.case(name, "from the first"):
                is_read = name in READ or name in BESIDE
                read, unread = ["200", "401", "200"], ["503", "503", "503"]
                if name in UNREAD:
                    assert at_first in (read, unread)
                else:
                    assert at_first == (read if is_read else unread)


@pytest.mark.parametrize("guard", [guard for guard in GUARDS if guard != "PHP"])
def test_strangers_hold_nobody_up_while_the_issuer_hangs_and_make_no_503(
    guard: str, publisher: Publisher, tmp_path: Path
) -> None:
    assert judged(guard, [publisher.line("hanging")], tmp_path, publisher) == [["200", "200", "True", "[401]"]]


@pytest.mark.parametrize("guard", [guard for guard in GUARDS if guard not in (*OWN, "Node")])
def test_old_keys_do_not_tell_that_another_key_is_unknown(guard: str, publisher: Publisher, tmp_path: Path) -> None:
    lines = [publisher.line(f"old/{list(DOCUMENTS).index('maintenance')}")]
    assert judged(guard, lines, tmp_path, publisher) == [["200", "503", "200"]]
