"""Every command and path of AGENTS.md, which assistants read first, is there."""

import re
import subprocess

import pytest

from tests.docs import ROOT

PAGE = (ROOT / "AGENTS.md").read_text()
COMMANDS = re.findall(r"(?m)^    (scripts/\S.*?) +#", PAGE) + re.findall(r"`(scripts/[^`]+)`", PAGE)


def test_it_is_one_page() -> None:
    assert len(PAGE.splitlines()) <= 70


def test_every_path_is_there() -> None:
    named = re.findall(r"(?m)^    ((?:src|alembic|clients|examples|docs|tests)/\S*)", PAGE)
    named += re.findall(r"\]\(([^)#]+)\)|\b(docs/[\w./-]+\.(?:md|txt))|`((?:tests|deploy|docs)/[\w./-]*)`", PAGE)
    paths = {path for each in named for path in ([each] if isinstance(each, str) else each) if path}
    assert len(paths) > 12
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert [*ROOT.glob("requirements/*.lock")]


def test_every_command_is_there() -> None:
    assert len(COMMANDS) > 10
    scripts = {command.split()[0] for command in COMMANDS}
    assert [script for script in sorted(scripts) if not (ROOT / script).is_file()] == []
    for command in COMMANDS:
        script, *arguments = command.split()
        text = (ROOT / script).read_text()
        for argument in arguments:
            is_known = argument in text or argument.startswith("tests/") or argument in ("--port", "--write-plans")
            assert is_known, f"{script} knows no {argument}"


@pytest.mark.process
def test_the_commands_that_only_look_run() -> None:
    for command in (
        ["scripts/weigh"],
        ["scripts/dev", "--help"],
        ["scripts/test", "--collect-only", "-q", "tests/login"],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
