"""No page and no example checks by hand whether a token is a website's, because guards do."""

import re

from tests.docs import ROOT

BY_HAND = re.compile(
    r"""["']scope["']\ (not\ )?in\ \w          # Python, JavaScript
    | \.scope(\(\))?\ [!=]==?\ (null|nil)     # Java, Go
    | isset\(\$\w+\[['"]scope['"]\]\)         # PHP
    """,
    re.VERBOSE | re.IGNORECASE,
)
FOLDERS = ("docs", "examples", "skills", "desk/src", "deploy")
SUFFIXES = {".md", ".txt", ".py", ".js", ".cjs", ".mjs", ".ts", ".java", ".go", ".php"}


def test_no_page_and_no_example_checks_the_scope_by_hand() -> None:
    files = [*ROOT.glob("README*.md"), *ROOT.glob("clients/*/README*.md")]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    paths = [path for path in files if path.suffix in SUFFIXES and "node_modules" not in path.parts]
    assert len(paths) > 200
    found = {}
    for path in paths:
        if checks := len(BY_HAND.findall(path.read_text())):
            found[str(path.relative_to(ROOT))] = checks
    assert found == {}


def test_a_check_by_hand_is_found() -> None:
    for line in (
        'if "scope" in user.claims:',
        "if 'scope' not in claims:",
        "if ('scope' in request.user.claims)",
        "if (user.scope() == null)",
        "if user.Scope != nil {",
        "if (isset($claims['scope'])) {",
    ):
        assert BY_HAND.search(line), line
