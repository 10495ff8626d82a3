"""`scripts/site` builds a searchable site from the guides in both languages. It loads nothing from other hosts."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from scripts.build_site import ROOT, ZENSICAL, page, settings
from scripts.record_login import RECORDED, record
from tests.clock import PATIENCE
from tests.docs import DOCS, guide
from tests.processes import WXAUTH_DESK, Running, free_port
from tests.programs import NODE_PATIENCE, needs, run_node_tests

ELSEWHERE: Final = re.compile(
    r'<(?:script|img|iframe)[^>]* src="?https?:[^>]*>|<link[^>]* rel="?stylesheet"?[^>]* href="?https?:'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    env = {**os.environ, "SECURITY_CONTACT": "mailto:security@example.com"}
    command = [ROOT / "scripts/site", folder]
    made = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=NODE_PATIENCE)
    assert made.stdout.endswith(f"--directory '{folder}'\n")
    return folder


@pytest.mark.foreign
def test_the_site_has_every_guide_in_both_languages_a_search_and_a_contact(site: Path) -> None:
    for translated in (DOCS / "zh").rglob("*.md"):
        name = str(translated.relative_to(DOCS / "zh"))
        name = {"README.md": "guides.md", "site/home.md": "index.md"}.get(name, name).replace(".md", ".html")
        assert 'lang="en"' in (site / name).read_text()
        assert 'lang="zh"' in (site / "zh" / name).read_text()
    for folder, title in (("", "The console and support"), ("zh", "管理后台与客服")):
        found = json.loads((site / folder / "search.json").read_text())
        assert title in json.dumps(found, ensure_ascii=False)
    assert "Contact: mailto:security@example.com\n" in (site / ".well-known/security.txt").read_text()


@pytest.mark.foreign
@pytest.mark.browser
@pytest.mark.node
def test_the_site_has_no_barriers(site: Path) -> None:
    pages = "index guides build/siblings zh/index zh/build/mini-program zh/reference/settings"
    env = {"CHROMIUM": needs("chromium-headless-shell", "chromium"), "SITE": str(site), "PAGES": pages}
    run_node_tests("site/site.test.js", env)
    run_node_tests("site/front.test.js", env)


@pytest.mark.foreign
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for shown in site.rglob("*.html"):
        text = shown.read_text()
        assert ELSEWHERE.findall(text) == []
        assert 'class="mermaid"' not in text, "the theme would load the program that draws it"


@pytest.mark.foreign
@pytest.mark.parametrize("link", ["gone.md", "README.md#gone"])
def test_a_broken_link_fails_the_build(site: Path, tmp_path: Path, link: str) -> None:
    assert site.is_dir(), "Zensical is installed"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/README.md").write_text(f"# Guides\n\n[there]({link})\n")
    (tmp_path / "zensical.toml").write_text(re.sub(r"(?m)^nav = .*", "", settings("en")))
    run = subprocess.run(
        [ZENSICAL, "build", "--strict"], cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False
    )
    assert run.returncode != 0


@pytest.mark.process
def test_the_recorded_login_has_the_steps_of_one_now(tmp_path: Path) -> None:
    wechat_port = free_port()
    ports = ("--port", str(free_port()), "--wechat-port", str(wechat_port))
    with Running(WXAUTH_DESK, "dev", *ports, cwd=tmp_path) as service:
        service.wait_for("Ctrl-C")
        now = record(f"http://127.0.0.1:{wechat_port}")
    kept = json.loads(RECORDED.read_text())
    assert len(now) == len(kept)
    assert all(map(has, now, kept))
    assert now[2]["body"]["secret"] == "•••"


def has(now: object, kept: object) -> bool:
    """Return whether all names in `kept` still exist."""
    if not isinstance(kept, dict):
        return not isinstance(now, dict)
    return isinstance(now, dict) and all(name in now and has(now[name], part) for name, part in kept.items())


@pytest.mark.slow
def test_a_link_leads_to_the_page_of_its_language_and_a_file_of_the_code_to_its_source() -> None:
    assert "[Guides](../guides.md)" in page(guide("console"), "en")
    assert "[wxauth](index.md)" in page(DOCS / "README.md", "en")
    assert '<a href="../zh/manage/console.html" hreflang="zh-CN">中文</a>' in page(guide("console"), "en")
    assert "[隐私](manage/privacy.md)" in page(DOCS / "zh/README.md", "zh")
    assert '<a href="../guides.html" hreflang="en">English</a>' in page(DOCS / "zh/README.md", "zh")
    assert "[deploy](https://code.test/deploy/README.md)" in page(guide("operations"), "en", source="https://code.test")
    assert "[deploy]" not in page(guide("operations"), "en")


@pytest.mark.slow
def test_a_tests_name_is_broken_between_its_words() -> None:
    assert "<code>test&#95;<wbr>a&#95;<wbr>bearer&#95;<wbr>alone" in page(guide("security"), "en")
