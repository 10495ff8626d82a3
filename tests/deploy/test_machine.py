"""The page about one machine works from start to end, with systemd, PostgreSQL, nginx and Prometheus.

On the same machine, the other pages' steps upgrade wxauth, restore it after a failure, and upgrade PostgreSQL.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, ClassVar

import httpx
import pytest

from tests.certificates import Authority
from tests.deploy.conftest import people_at_work
from tests.deploy.machine import NEWER, Machine, booted
from tests.docs import ROOT, block, code_blocks
from tests.processes import PATIENCE, serving, until
from tests.world import bearer
from wxauth_desk.wechat import APPS, create_simulator

pytestmark = [pytest.mark.operations, pytest.mark.process]

PAGE = "docs/run/one-machine.md"
MOST_EXPOSED = 2.0
"""The highest exposure, out of 10, that systemd may report. A network service needs the access that is left."""
POSTGRES = "/var/lib/postgresql"
MINE = {
    "echo wx1a2b3c4d5e6f7a8b": f"echo {APPS[0]['app_id']}",
    "echo 0123456789abcdef0123456789abcdef": f"echo {APPS[0]['app_secret']}",
}
"""The parts of the guide's commands that a reader replaces with their own values."""
ISSUER = "WXAUTH_ISSUER=https://auth.example.com\n"
SETTINGS = (
    f"{ISSUER}SSL_CERT_FILE=/etc/letsencrypt/authority.pem\n"
    "WXAUTH_LOGIN_RATE_LIMIT=1000000/minute\nWXAUTH_WECHAT_BASE_URL={}\n"
)
SIMULATED = {"apt-get install": "apt-get install --simulate"}
"""The packages are already installed, because the machine can't reach a mirror."""
MY_MAIL = {
    "smtp.example.com:465": "127.0.0.1:{}\n  smtp_require_tls: false",
    "receiver: on-duty": "receiver: on-duty\n  group_wait: 1s",
}
"""The test's mail server accepts no TLS, and the test doesn't wait for further alerts of the same message."""
LOOPBACK = "0100007F"
"""127.0.0.1 in /proc/net/tcp."""
UNTIL_IT_SERVES = "until WXAUTH_PORT=$port wxauth alive --ready; do sleep 0.1; done"


@dataclass(frozen=True)
class Installed:
    """A machine on which wxauth is installed."""

    machine: Machine
    authority: Authority
    followed: list[int] = field(default_factory=list)
    """The numbers of the page's blocks that were run."""

    def follow(self, words: str, mine: Mapping[str, str] | None = None) -> str:
        """Run the page's block with these words, and return what it prints. No later block may have been run before."""
        shown = block(PAGE, words)
        number = code_blocks(ROOT / PAGE, "sh").index(shown)
        assert number > max(self.followed, default=-1)
        self.followed.append(number)
        for theirs, ours in (mine or {}).items():
            assert theirs in shown
            shown = shown.replace(theirs, ours)
        return self.machine.run(shown)

    def client(self) -> httpx.Client:
        """Return a client of nginx. Call this in a separate thread, because the thread enters the machine's network."""
        self.machine.enter_network()
        trusted = self.authority.trusted()
        return httpx.Client(base_url="https://127.0.0.1", verify=trusted, trust_env=False, timeout=PATIENCE)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        def request() -> Any:
            with self.client() as client:
                return client.request(method, path, **options).raise_for_status().json()

        return self.machine.within(request)

    def log_in(self, person: str) -> Any:
        return self.ask("POST", "/v1/login", json={"code": person})

    def logged(self, event: str) -> int:
        return self.machine.run("journalctl --namespace=wxauth --output=cat").count(f'"event":"{event}"')

    def restart(self) -> None:
        """Restart both instances, and wait until they serve."""
        self.machine.run(f"for port in 8001 8002; do systemctl restart wxauth@$port\n{UNTIL_IT_SERVES}; done")


class Mailbox(StreamRequestHandler):
    """A mail server, which keeps the messages that it accepts."""

    messages: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.wfile.write(b"220 mail\r\n")
        for line in iter(self.rfile.readline, b"QUIT\r\n"):
            is_data = line.startswith(b"DATA")
            self.wfile.write(b"354 go on\r\n" if is_data else b"250 mail\r\n")
            if is_data:
                self.messages.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                self.wfile.write(b"250 accepted\r\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("machine")
    authority = Authority(folder)
    authority.server("auth.example.com", "127.0.0.1")
    with booted(folder) as machine:
        listen = partial(machine.within, lambda: socket.create_server(("127.0.0.1", 0), backlog=2048))
        with serving(create_simulator(), at=listen()) as wechat_url:
            certificates = machine.root / "etc/letsencrypt"
            live = certificates / "live/auth.example.com"
            live.mkdir(parents=True)
            for name in ("fullchain", "privkey"):
                (live / f"{name}.pem").write_bytes((folder / "server.pem").read_bytes())
            (certificates / "authority.pem").write_bytes(authority.file.read_bytes())
            machine.run("echo 127.0.0.1 auth.example.com db.example.com $(hostname) >>/etc/hosts")
            installed = Installed(machine, authority)
            installed.follow("python3-certbot-nginx", SIMULATED)
            installed.follow("CREATE ROLE")
            installed.follow("deploy/systemd/install")
            installed.follow("ln -sfn /opt/wxauth-0.1.0", {**MINE, ISSUER: SETTINGS.format(wechat_url)})
            installed.follow("site=auth.example.com")
            machine.run("wxauth check")
            installed.follow("wxauth-backup.timer")
            yield installed


def test_exactly_the_lock_is_installed_and_nothing_over_a_version_that_runs(installed: Installed) -> None:
    listed = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    found = installed.machine.run(f'/opt/wxauth/bin/python -c "{listed}"').lower().replace("_", "-").split()
    locked = re.findall(r"(?m)^\w[\w.-]*==[^ ;]+", (ROOT / "requirements/server.lock").read_text())
    assert {*found} - {*locked} == {"wxauth==0.1.0", "wxauth-guard==0.1.0"}
    assert "already exists" in installed.machine.run("deploy/systemd/install 2>&1 || true")
    installed.machine.run("printf '#!/bin/sh\necho /root/.pyenv' >/opt/python && chmod +x /opt/python")
    assert "Set PYTHON" in installed.machine.run("PYTHON=/opt/python deploy/systemd/install /opt/hidden 2>&1 || true")


@pytest.mark.requirement("asvs-13.2.2")
def test_a_unit_has_no_access_beyond_its_needs(installed: Installed) -> None:
    for unit in ("wxauth@8001", "wxauth-migrate"):
        printed = installed.machine.run(f"systemd-analyze security --no-pager {unit}")
        [exposure] = re.findall(r"Overall exposure level for \S+: (\S+)", printed)
        assert float(exposure) <= MOST_EXPOSED


def test_the_log_is_kept_apart_by_a_configuration_that_journald_knows(installed: Installed) -> None:
    installed.log_in("alice")
    until(lambda: installed.logged("logged_in"))
    machines_own = installed.machine.run("journalctl --output=cat")
    assert "logged_in" not in machines_own
    assert "Unknown key" not in machines_own
    assert "Storage=persistent" in installed.machine.run("systemd-analyze cat-config systemd/journald@wxauth.conf")
    assert installed.machine.run("ls --directory /var/log/journal/*.wxauth")


def test_an_instance_that_was_killed_is_started_again_and_cannot_be_reloaded(installed: Installed) -> None:
    main_pid = partial(installed.machine.run, "systemctl show --value --property=MainPID wxauth@8001")
    killed = main_pid()
    installed.machine.run(f"kill -9 {killed}")
    until(lambda: main_pid().strip() not in ("0", killed.strip()))
    installed.machine.run(f"port=8001; {UNTIL_IT_SERVES}; ! systemctl reload wxauth@8001")
    assert installed.log_in("alice")["user"]


def test_the_upgrade_shown_and_the_way_back_fail_no_request(installed: Installed) -> None:
    machine = installed.machine
    # `install` has already run once. A copy of its result takes a tenth of the time.
    machine.run("cp --recursive --preserve /opt/wxauth-0.1.0 /opt/wxauth-0.2.0")
    machine.run("sed -i s/0.1.0/0.2.0/ /opt/wxauth-0.2.0/bin/*")
    shown = block("deploy/README.md", "systemctl restart").replace("deploy/systemd/install\n", "")
    back = re.sub(".*wxauth-migrate\n| *sleep 3 .*\n", "", shown).replace("0.2.0", "0.1.0")
    with people_at_work(installed.client) as seen:
        for commands, version in ((shown, "0.2.0"), (back, "0.1.0")):
            until(lambda: seen["200"] > 20)
            machine.run(commands)
            pid = machine.run("systemctl show --value --property=MainPID wxauth@8002").strip()
            assert version in machine.run(f"tr '\\0' ' ' </proc/{pid}/cmdline"), version
            so_far = seen.total()
            until(lambda: seen.total() > so_far + 50)  # noqa: B023 - done within the turn
    assert set(seen) == {"200"}, seen


def test_nginx_writes_to_a_new_log_after_it_was_rotated(installed: Installed) -> None:
    installed.log_in("alice")
    installed.machine.run("logrotate --force /etc/logrotate.d/wxauth")
    log = "/var/log/wxauth/access.log"
    assert "/v1/login" in installed.machine.run(f"cat {log}-*")
    until(lambda: installed.log_in("alice") and "/v1/login" in installed.machine.run(f"cat {log}"))


def test_a_test_alert_is_sent_by_programs_that_only_this_machine_reaches(installed: Installed) -> None:
    machine = installed.machine
    installed.follow("--no-install-recommends", SIMULATED)
    with machine.within(lambda: ThreadingTCPServer(("127.0.0.1", 0), Mailbox)) as mail:
        Thread(target=mail.serve_forever, daemon=True).start()
        mine = {theirs: ours.format(mail.server_address[1]) for theirs, ours in MY_MAIL.items()}
        assert installed.follow("alertmanager.yml", mine).count("SUCCESS") >= 2
        asked = block(PAGE, "promtool query").splitlines()[0]
        until(lambda: machine.run(f"{asked} || true").count("=> 1 @") == 2)
        installed.follow("promtool query")
        until(lambda: any("A test of the alerts" in message for message in Mailbox.messages))
        mail.shutdown()
    listening = machine.run("cat /proc/net/tcp /proc/net/tcp6")
    assert re.findall(r"(?m)^ *\d+: (\w+):238[2-6] \w+:0000 0A", listening) == [LOOPBACK] * 2


def test_the_first_rotations_fail_no_request(installed: Installed) -> None:
    machine = installed.machine
    key = machine.run("cat /etc/wxauth/secrets/secret_key")
    with people_at_work(installed.client) as seen:
        until(lambda: seen["200"] > 20)
        assert " signs from " in installed.follow("keys rotate --at-once")
        assert "ok    sealed_data" in installed.follow("restart_in_turn", {"        sleep 3\n": ""})
        so_far = seen.total()
        until(lambda: seen.total() > so_far + 50)
    assert set(seen) == {"200"}, seen
    assert machine.run("cat /etc/wxauth/secrets/secret_key") != key
    assert "secret_key_previous" not in machine.run("ls /etc/wxauth/secrets")


def test_the_nightly_backup_is_copied_drilled_and_restored_as_shown(installed: Installed) -> None:
    machine, page = installed.machine, "docs/run/backups.md"
    alice = installed.log_in("alice")
    assert machine.run("systemctl is-active wxauth-backup.timer") == "active\n"
    copied, found = re.subn("/usr/bin/rsync .*", "/bin/sh -c 'cp /backup/*.dump /dev/shm/'", block(page, "copy.conf"))
    assert found == 1
    machine.run(copied)  # the test has no second machine
    assert machine.run("cd /dev/shm && ls *.dump") == machine.run("cd /backup && ls")
    key = "export WXAUTH_SECRET_KEY=$(cat /etc/wxauth/secrets/secret_key)\n"
    drilled = machine.run(f"{key}{block(page, 'pg_dump --format')}{block(page, 'dropdb drill')}")
    assert "BAD  " not in drilled
    assert "ok    sealed_data" in drilled
    assert "set" not in drilled.partition("users")[0], "only what the page speaks of is printed"

    installed.log_in("carol")
    restore = block(page, "systemctl stop").replace("2026-11-22", "$(date +%F)")
    assert "BAD  " not in machine.run(restore + block(page, "systemctl start wxauth@8001").replace("wxauth check", ""))
    machine.run(f"for port in 8001 8002; do {UNTIL_IT_SERVES}; done; wxauth check")
    assert installed.ask("GET", "/v1/me", headers=bearer(alice))["id"] == alice["user"]["id"]
    assert installed.log_in("carol")["is_new_user"] is True


def test_the_moment_before_a_mistake_is_restored_and_is_what_the_next_boot_starts(installed: Installed) -> None:
    machine, page = installed.machine, "docs/run/backups.md"
    alice = installed.log_in("alice")
    machine.run("install --directory --owner=postgres /backup /backup/wal")
    settings = block(page, "archive_command") + block("docs/run/database.md", "wal_compression")
    (machine.root / "etc/postgresql/15/main/conf.d/wal.conf").write_text(settings)
    machine.run("systemctl restart postgresql")
    as_postgres = partial(machine.run, user="postgres", folder=POSTGRES)
    as_postgres(block(page, "pg_basebackup"))
    carol = installed.log_in("carol")
    moment = as_postgres("psql --tuples-only --no-align --command='SELECT now()'").strip()
    as_postgres("psql wxauth --command='TRUNCATE users CASCADE'")
    machine.run("systemctl stop 'wxauth@*' postgresql")

    unpack, start = block(page, "tar -xzf").split("cat >>")
    today = re.sub(r"base-\d+-\d+-\d+", f"base-{moment[:10]}", unpack)
    then = re.sub(r"(recovery_target_time = ').*'", rf"\g<1>{moment}'", "cat >>" + start)
    debian = block(page, "/etc/postgresql/15/main/*.conf")
    until_promoted = 'until [ "$(psql -Atc "SELECT pg_is_in_recovery()")" = f ]; do sleep 0.1; done\n'
    as_postgres(f"{today}{debian}{then}{until_promoted}{block(page, 'mistaken')}")
    machine.run("systemctl start postgresql && wxauth migrate && wxauth check")
    installed.restart()

    assert [installed.ask("GET", "/v1/me", headers=bearer(each))["id"] for each in (alice, carol)] == [
        each["user"]["id"] for each in (alice, carol)
    ]
    settings = as_postgres("psql -At --command='SHOW archive_mode' --command='SHOW data_directory'")
    assert settings == f"on\n{POSTGRES}/15/main\n", "the cluster that Debian starts"
    machine.run("cd /backup && touch --date='32 days ago' base-old wxauth-old.dump wal/old && touch wxauth-new.dump")
    machine.run(block(page, "find /backup/wal"))
    assert machine.run("ls /backup /backup/wal | grep -E 'old|new|base'") == f"base-{moment[:10]}\nwxauth-new.dump\n"


def test_the_tables_are_made_through_a_url_with_a_name_of_the_host(installed: Installed) -> None:
    password = "$(cut -d: -f3 /etc/wxauth/secrets/database_url | cut -d@ -f1)"
    shown = block("docs/run/database.md", "export WXAUTH_DATABASE_URL").replace(":password@", f":{password}@")
    assert "schema at" in installed.machine.run(shown)


def test_logical_replication_takes_users_and_events_to_the_next_major_version(installed: Installed) -> None:
    machine, page = installed.machine, "docs/run/database.md"
    as_postgres = partial(machine.run, user="postgres", folder=POSTGRES)
    alice = installed.log_in("alice")
    machine.run("echo wal_level = logical >/etc/postgresql/15/main/conf.d/logical.conf && systemctl restart postgresql")
    as_postgres("psql --command=\"ALTER ROLE postgres PASSWORD 'password'\"")
    as_postgres(f"{NEWER}/initdb --auth=trust --pgdata=18")
    as_postgres(f"{NEWER}/pg_ctl --pgdata=18 --options='-p 5433 -k /tmp' --log=log start")
    newer = {"PGPORT": "5433", "PGHOST": "127.0.0.1"}
    roles = block(page, "createuser --pwprompt").replace("sudo -u postgres ", "")
    as_postgres(roles, given="password\n" * 2, **newer)
    by_port = "postgresql://postgres:password@127.0.0.1:{}/wxauth".format
    urls = {"OLD": by_port(5432), "NEW": by_port(5433)}
    begin, *_, question = block(page, "CREATE SUBSCRIPTION").partition('psql "$NEW" -Atc')
    begin = begin.replace("host=db-1", "host=127.0.0.1").replace("password=…", "password=password")
    as_postgres(begin, **urls)
    until(lambda: as_postgres(f'psql "$NEW" -Atc{question}', **urls) == "0\n")
    machine.run("systemctl stop 'wxauth@*'")
    lag, rest = block(page, "confirmed_flush_lsn").split("\n", 1)
    until(lambda: as_postgres(lag, **urls) == "0\n")
    as_postgres(rest, **urls)
    machine.run("sed -i s/5432/5433/ /etc/wxauth/secrets/database_url && systemctl stop postgresql")
    installed.restart()

    assert installed.log_in("alice")["user"]["id"] == alice["user"]["id"]
    assert installed.log_in("dave")["is_new_user"] is True


def test_pg_upgrade_takes_users_and_events_to_the_next_major_version(installed: Installed) -> None:
    machine = installed.machine
    as_postgres = partial(machine.run, user="postgres", folder=POSTGRES)
    alice = installed.log_in("alice")
    machine.run("systemctl stop 'wxauth@*' postgresql && sed -i s/5433/5432/ /etc/wxauth/secrets/database_url")
    as_postgres(f"{NEWER}/initdb --auth=trust --no-data-checksums --pgdata=upgraded")
    old = "--old-datadir=15/main --old-bindir=/usr/lib/postgresql/15/bin"
    settings = "--old-options='-c config_file=/etc/postgresql/15/main/postgresql.conf'"
    upgrade = f"{NEWER}/pg_upgrade --link {old} {settings} --new-datadir=upgraded --new-bindir={NEWER}"
    as_postgres(f"{upgrade} --check && {upgrade}")
    as_postgres(f"{NEWER}/pg_ctl --pgdata=upgraded --options='-k /tmp' --log=log start")
    installed.restart()
    assert installed.log_in("alice")["user"]["id"] == alice["user"]["id"]
    assert "PostgreSQL 18" in machine.run("wxauth check")
