"""Every step of docs/start/tutorial.md works with a clone. tests/containers runs the tutorial's server commands."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.dev.banner import printed_by_dev
from tests.dev.running import clone_in, fenced, form, installed_by, running_dev
from tests.docs import block, guide
from tests.processes import Running, environment, free_port
from tests.programs import needs, output_of

TUTORIAL = guide("tutorial")


def named_files() -> dict[str, str]:
    """Return the text of each file that readers of the page write, by its path in `shop`."""
    named = r"(?m)^.*?`((?:[\w-]+/)*[\w-]+\.(?:py|js|mjs|json|wxml))`.*\n\n```\w+\n((?s:.*?))^```$"
    found = re.findall(named, TUTORIAL.read_text())
    folder = "miniprogram/"
    return {name.removeprefix("shop/") if name.startswith("shop/") else folder + name: text for name, text in found}


def without_id(problem: str) -> dict[str, Any]:
    return {**json.loads(problem), "request_id": ""}


@pytest.mark.wheel
@pytest.mark.node
@pytest.mark.process
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    needs("curl"), needs("node")
    shop, clone, port = tmp_path / "shop", tmp_path / "wxauth", str(free_port())
    shown = [text for language, text in fenced(TUTORIAL) if language in ("text", "json")]
    banner, me, started, ordered, _, first, users, refused_order, banned, _ = shown
    assert {*banner.splitlines()} <= {*printed_by_dev("en").splitlines()}
    with running_dev(clone, program=(clone_in(clone),)) as dev:
        ports = {"8000": dev.url, "8001": dev.wechat_url, "8002": f"http://127.0.0.1:{port}"}

        def here(text: str) -> str:
            return re.sub(r"http://127\.0\.0\.1:(\d+)", lambda at: ports[at[1]], text)

        def types(words: str, folder: Path = shop / "miniprogram", instead: Mapping[str, str] = {}) -> str:
            text = here(block(TUTORIAL, words))
            for theirs, own in instead.items():
                text = text.replace(theirs, own)
            return output_of("sh", "-euc", text, cwd=folder, env=environment())

        alice = json.loads(types("/v1/me", clone))
        assert form(alice) == form(json.loads(me))
        assert (alice["openid"], alice["unionid"]) == (json.loads(me)["openid"], json.loads(me)["unionid"])

        installed_by(block(TUTORIAL, "pip install"), tmp_path)
        types("cp ../../wxauth")
        files = named_files()
        assert len(files) == 8
        for name, text in files.items():
            (shop / name).write_text(here(text))
        command = block(TUTORIAL, "uvicorn app:app").replace("8002", port)
        with Running("sh", "-c", f"exec {command}", cwd=shop / "api") as service:
            for line in started.replace("8002", port).splitlines():
                service.wait_for(line)
            [order, refusal], [shown_order, shown_refusal] = (
                text.splitlines() for text in (types('"item": "oolong tea"'), ordered)
            )
            assert order == shown_order
            assert without_id(refusal) == without_id(shown_refusal)
            assert types("node try.mjs") == first

            listed = types("users list", clone)
            varying = r"(?m)[0-9a-f-]{36}|\d{4}-\d\d-\d\dT\S+|[0-9a-f]{8}$"
            assert re.sub(varying, "", listed) == re.sub(varying, "", users)
            _, bob, first_of_all = listed.splitlines()
            assert first_of_all.split()[0] == alice["id"]
            whose = {"USER_ID": bob.split()[0]}
            held = types('{"code":"bob"}', instead={"TOKEN=$": "printf %s $"})
            [told_at_ban] = re.findall("`.* (is disabled, .*?)`", TUTORIAL.read_text())
            assert types("users ban", clone, whose) == f"{whose['USER_ID']} {told_at_ban}\n"
            in_the_terminal = f"TOKEN={held}; curl"
            refusal = types("tea after the ban", instead={"curl": in_the_terminal})
            assert without_id(refusal) == without_id(refused_order)
            # The page says that another route accepts the token.
            reading = {"curl": in_the_terminal, """ -d '{"item": "tea after the ban"}'""": ""}
            assert json.loads(types("tea after the ban", instead=reading)) == ["oolong tea"]
            assert types("node try.mjs") == banned
            types("users unban", clone, whose)
            assert types("node try.mjs").count("oolong tea") == 3
