"""No page and no example has code of its own that checks a token, because the guards are packages."""

import re

from tests.docs import ROOT

BY_HAND = re.compile(
    r"""["']scope["']\ (not\ )?in\ \w          # Python, JavaScript
    | \.scope(\(\))?\ [!=]==?\ (null|nil)     # Java, Go
    | isset\(\$\w+\[['"]scope['"]\]\)         # PHP
    """,
    re.VERBOSE | re.IGNORECASE,
)
VERIFIER = re.compile(
    r"jwks|at\+jwt|jwtVerify|ParseWithClaims|JwtDecoder|ES256|firebase.php-jwt|jwt\.(decode|verify)", re.I
)
SITES = {  # OpenID sites, which verify an id_token or a logout token
    "examples/nextjs/app/backchannel-logout/route.js",
    "examples/openid/oidc_settings.py",
    "examples/site/app.py",
}
ADVICE = re.compile(
    r"\bcop(?:y|ied|ies)\b[^.|]*?\b(?:guard|verifier|filter|decoder|examples/(?:spring|java|go|php))\b", re.I
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


def test_no_example_verifies_a_token_without_a_guard() -> None:
    code = [path for path in (ROOT / "examples").rglob("*") if path.suffix in SUFFIXES - {".md", ".txt"}]
    paths = [path for path in code if not {"node_modules", "target", "vendor"} & {*path.parts}]
    found = {str(path.relative_to(ROOT)) for path in paths if VERIFIER.search(path.read_text())}
    assert found == SITES


def test_no_page_tells_anybody_to_copy_a_guard() -> None:
    pages = [*ROOT.glob("README.md"), *ROOT.glob("clients/*/README.md"), *(ROOT / "skills").rglob("*.md")]
    pages += [*(ROOT / "examples").glob("*/README.md"), *(ROOT / "docs").glob("*/*.md")]
    told = {
        f"{page.relative_to(ROOT)}: {found[0]}"
        for page in pages
        if page.name != "from-copies.md"
        for found in ADVICE.finditer(page.read_text())
    }
    assert told == set()


def test_advice_to_copy_a_guard_is_found() -> None:
    for line in (
        "Copy the guard into your project.",
        "copy `jwtDecoder` and the filter",
        "Copy [the folder](examples/spring)",
    ):
        assert ADVICE.search(line), line


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
