"""The commands on the page of `deploy/compose` work exactly as shown, with the image of this checkout."""

import json
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import wxauth
from tests.containers.engine import NEIGHBOUR, ROOT, WECHAT, Engine
from tests.deploy.conftest import people_at_work
from tests.docs import block
from tests.processes import until
from tests.world import bearer
from wxauth_desk.wechat import APPS

pytestmark = pytest.mark.container

FOLDER = ROOT / "deploy/compose"
SHOWN = re.findall(r"^#     (docker compose .*?)(?:  +.*)?$", (FOLDER / "compose.yaml").read_text(), re.MULTILINE)
"""The commands in the comment at the top of the file."""
TUTORIAL = "docs/start/tutorial.md"
REPLICAS = ("wxauth-1", "wxauth-2")
SERVICES = ("postgres", *REPLICAS, "caddy")
FOR_TESTS = f"""\
services:
  wxauth-1: &replica
    environment:
      WXAUTH_WECHAT_BASE_URL: {WECHAT}
      WXAUTH_LOGIN_RATE_LIMIT: 100000/minute
      SSL_CERT_FILE: /authority.pem
    volumes:
      - AUTHORITY:/authority.pem:ro
  wxauth-2: *replica
"""


@dataclass(frozen=True)
class Site:
    """A host with the files of `deploy/compose`, whose name is localhost."""

    engine: Engine
    folder: Path
    trusted: ssl.SSLContext

    def run(self, command: str) -> str:
        return self.engine.run("sh", "-euc", command, folder=self.folder)

    def phone(self, version: str = "IPv4") -> httpx.Client:
        return self.engine.phone("https://localhost", version, verify=self.trusted)

    def log_in(self) -> dict[str, Any]:
        with self.phone() as phone:
            return phone.post("/v1/login", json={"code": "alice"}).raise_for_status().json()

    def answers(self) -> bool:
        with self.phone() as phone, suppress(httpx.TransportError):
            return phone.get("/livez").status_code == 200
        return False

    def ids(self) -> dict[str, str]:
        return {service: self.run(f"docker compose ps --all --quiet {service}") for service in SERVICES}


@pytest.fixture(scope="module")
def site(engine: Engine, checkout: Path, image: str, authority: Path) -> Iterator[Site]:
    folder = checkout / "deploy/compose"
    (folder / "tests.yaml").write_text(FOR_TESTS.replace("AUTHORITY", str(authority)))
    answers = {"SITE": "localhost", "APP_ID": APPS[0]["app_id"], "APP_SECRET": APPS[0]["app_secret"]}
    engine.run("sh", "-euc", block(TUTORIAL, "./make-secrets"), folder=checkout, **answers)
    with (folder / ".env").open("a") as settings:
        settings.write("COMPOSE_FILE=compose.yaml:tests.yaml\n")
    try:
        engine.run("sh", "-euc", block(TUTORIAL, "compose up"), folder=folder)
        wait_until_healthy(engine)
        root = engine.docker("exec", "wxauth-caddy-1", "cat", "/data/caddy/pki/authorities/local/root.crt")
        yield Site(engine, folder, ssl.create_default_context(cadata=root))
    finally:
        engine.run("docker", "compose", "down", "--volumes", "--timeout=1", folder=folder)
        shutil.rmtree(folder / "secrets")


def wait_until_healthy(engine: Engine) -> None:
    for replica in REPLICAS:
        until(lambda: engine.inspect(f"wxauth-{replica}-1", "{{.State.Health.Status}}") == "healthy")  # noqa: B023


def test_a_login_through_caddy_is_of_the_phones_own_address(site: Site) -> None:
    for version, (_, own) in NEIGHBOUR.items():
        with site.phone(version) as phone:
            login = phone.post("/v1/login", json={"code": version}).raise_for_status().json()
            sessions = phone.get("/v1/me/sessions", headers=bearer(login)).raise_for_status().json()["items"]
        assert [session["ip"] for session in sessions] == [own]


def test_the_upgrade_shown_fails_no_request(site: Site) -> None:
    pull, *upgrade = SHOWN[1:5]
    assert pull.startswith("docker compose pull")  # there is no registry here, so another image gets the tag
    site.run(f"docker build --tag ghcr.io/wxauth/wxauth:{wxauth.__version__} --label tests=newer ../..")
    before = site.ids()
    with people_at_work(site.phone) as seen:
        until(lambda: seen["200"] > 50)
        for command in upgrade:
            site.run(command)
        so_far = seen.total()
        until(lambda: seen.total() > so_far + 50)
    assert set(seen) == {"200"}, seen
    after = site.ids()
    assert {service for service in SERVICES if before[service] != after[service]} == set(REPLICAS)


def test_while_postgresql_restarts_requests_wait_or_are_to_be_sent_again(site: Site) -> None:
    with people_at_work(site.phone) as seen:
        until(lambda: seen["200"] > 50)
        site.run("docker compose restart postgres")
        so_far = seen["200"]
        until(lambda: seen["200"] > so_far + 50)
    assert set(seen) <= {"200", "503"}, seen


def test_a_dump_is_restored_as_shown_and_a_check_of_another_shell_finds_the_site(site: Site) -> None:
    [dump] = re.findall(r"`(docker compose exec [^`]* pg_dump [^`]*)`", (ROOT / "docs/run/backups.md").read_text())
    site.run(dump)
    key = "file=wxauth.dump; export WXAUTH_SECRET_KEY=$(cat secrets/wxauth_secret_key)\n"
    assert "ok    sealed_data" in site.run(key + block("docs/run/backups.md", "--no-deps"))
    [check] = re.findall(r"`(docker compose exec [^`]* wxauth check)`", (ROOT / "docs/run/operations.md").read_text())
    assert check == block(TUTORIAL, "wxauth check").strip()
    assert "BAD  " not in site.run(check.replace("exec", "exec -T"))


def test_what_cron_has_dumped_replaces_the_database_as_shown(site: Site) -> None:
    page = "docs/run/backups.md"
    alice = site.log_in()
    [line] = re.findall(r"(?m)^30 3 \* \* \* root (.*)$", block(page, "/etc/cron.d/wxauth-backup"))
    nightly = line.replace("\\%", "%").replace("/root/wxauth/deploy/compose", str(site.folder))
    site.run(
        f"rm -rf /backup; install -d -m 700 /backup; {nightly}; mv /backup/wxauth-*.dump /backup/wxauth-2026-11-22.dump"
    )
    with site.phone() as phone:
        phone.post("/v1/login", json={"code": "carol"}).raise_for_status()
    exchange = block(page, "docker compose run --rm migrate").replace("exec wxauth", "exec -T wxauth")
    assert "BAD  " not in site.run(block(page, "docker compose stop") + exchange)
    with site.phone() as phone:
        again = phone.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]}).raise_for_status().json()
        carol = phone.post("/v1/login", json={"code": "carol"}).raise_for_status().json()
    assert again["user"]["id"] == alice["user"]["id"]
    assert carol["is_new_user"] is True


def test_the_commands_of_operations_start_what_is_not_running(site: Site) -> None:
    site.run("docker compose stop wxauth-1")
    shown = block("docs/run/operations.md", "./make-secrets").replace("exec", "exec -T")
    assert "BAD  " not in site.engine.run("sh", "-euc", shown, folder=site.folder.parents[1])


def test_what_an_override_sets_both_replicas_have_after_the_commands_shown(site: Site) -> None:
    page, own = "docs/run/operations.md", site.folder / "compose.override.yaml"
    replace = "export COMPOSE_FILE=compose.yaml:compose.override.yaml:tests.yaml\n" + block(page, "--wait wxauth-2")
    own.write_text(block(page, "WXAUTH_ADMIN_PAGE"))
    with site.phone() as phone:
        assert phone.get("/admin/").status_code == 404
        site.run(replace)
        assert {phone.get("/admin/").status_code for _ in range(8)} == {200}
    shown = json.loads(block(page, '"push_token"'))
    apps = site.folder / "secrets/wxauth_apps"
    apps.write_text(json.dumps([{**shown[0], **{name: APPS[0][name] for name in ("app_id", "app_secret")}}]))
    apps.chmod(0o444)
    own.write_text(block(page, "!override"))
    site.run(replace)
    for replica in REPLICAS:
        said = site.run(f"docker compose exec -T {replica} wxauth check")
        assert re.search(rf"ok +wechat {APPS[0]['app_id']} push .*安全模式", said), said
    site.log_in()


def test_after_down_and_up_all_is_there_again(site: Site) -> None:
    login = site.log_in()
    site.run(block(TUTORIAL, "compose down"))
    site.run(f"{SHOWN[0]} --wait")
    with site.phone() as phone:
        again = phone.post("/v1/refresh", json={"refresh_token": login["refresh_token"]}).raise_for_status().json()
    assert again["user"]["id"] == login["user"]["id"] == site.log_in()["user"]["id"]


def test_caddy_has_its_address_whoever_starts_first(site: Site) -> None:
    site.run("docker compose stop caddy && docker compose restart wxauth-1 && docker compose start caddy")
    until(site.answers)


def test_after_each_of_three_power_cuts_all_comes_back(site: Site) -> None:
    token = site.log_in()["refresh_token"]
    for _ in range(3):
        site.engine.cut_power()
        site.engine.start()
        wait_until_healthy(site.engine)
        until(site.answers)
        with site.phone() as phone:
            token = phone.post("/v1/refresh", json={"refresh_token": token}).raise_for_status().json()["refresh_token"]
        assert {site.engine.inspect(f"wxauth-{it}-1", "{{.State.Status}}") for it in SERVICES} == {"running"}
