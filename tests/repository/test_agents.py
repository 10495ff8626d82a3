"""Every command and path in AGENTS.md exists, because assistants read this page first."""

import re

from tests.docs import ROOT

PAGE = (ROOT / "AGENTS.md").read_text()
COMMANDS = re.findall(r"(?m)^    (scripts/\S.*?) +#", PAGE) + re.findall(r"`(scripts/[^`]+)`", PAGE)


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
