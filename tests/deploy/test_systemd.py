"""`deploy/systemd`: the units by systemd itself, and the settings that they give the service."""

import os
import re
import signal
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import httpx
import pytest

from tests.docs import DOCS, ROOT, both_languages, code_blocks
from tests.processes import WXAUTH, Running, free_port, run
from tests.programs import needs, output_of
from wxauth.server.core.settings import DatabaseSettings, Settings, load_settings

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
SERVICE = FOLDER / "wxauth@.service"
UNITS = sorted(FOLDER.glob("*.service"))
SHIPPED = "/opt/wxauth/bin/wxauth"
CREDENTIALS = {
    "database_url": "postgresql://wxauth@localhost:5432/wxauth",
    "secret_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "app_id": "wx1a2b3c4d5e6f7a8b",
    "app_secret": "0123456789abcdef0123456789abcdef",
}
"""The files that the unit's head names."""
SHIPPED_JOURNALD = Path("/etc/systemd/journald.conf")
"""Lists every name, commented out."""
MOST_EXPOSED = 20
"""Of 100, in systemd's own count: what is not closed, a service of the network needs."""

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def section(unit: Path, name: str) -> dict[str, str]:
    parser = RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit)
    return dict(parser[name])


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units, with the command where it is here."""
    assert UNITS
    for unit in UNITS:
        text = unit.read_text()
        assert text.count(f"{SHIPPED} ") == 1
        (tmp_path / unit.name).write_text(text.replace(SHIPPED, WXAUTH))
    return [tmp_path / unit.name for unit in UNITS]


@pytest.mark.operations
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_systemd_finds_no_fault(installed: list[Path]) -> None:
    command = [needs("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", *map(str, installed)]
    done = subprocess.run(command, capture_output=True, text=True)
    about_ours = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in installed)]
    assert (done.returncode, about_ours) == (0, [])


@pytest.mark.operations
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_a_unit_has_no_access_beyond_its_needs(installed: list[Path]) -> None:
    options = ("--offline=yes", f"--threshold={MOST_EXPOSED}")
    printed = output_of(needs("systemd-analyze"), "security", *options, *installed)
    assert printed.count("Overall exposure level") == len(installed)


@pytest.mark.parametrize(("unit", "kind"), [("wxauth@", Settings), ("wxauth-migrate", DatabaseSettings)])
def test_with_the_files_named_the_settings_are_whole(
    unit: str, kind: type[DatabaseSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = section(FOLDER / f"{unit}.service", "Service")
    given = re.fullmatch(r"(\w+):/etc/wxauth/secrets", service["LoadCredential"])
    assert given is not None
    # systemd.exec(5): of a folder, each file is a credential of that name, "_" and the file's.
    for name, value in CREDENTIALS.items():
        (tmp_path / f"{given[1]}_{name}").write_text(value)
    name, _, value = service["Environment"].partition("=")
    monkeypatch.setenv(name, value.replace("%d", str(tmp_path)))
    settings = load_settings(kind, env_file=tmp_path / "none")
    assert settings.database_url.get_secret_value() == CREDENTIALS["database_url"]


@both_languages
def test_the_installation_shown_gives_whole_settings(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [shown] = [block for block in code_blocks(DOCS / f"operations{language}.md", "sh") if "settings.env" in block]
    commands = "\n".join(line for line in shown.splitlines() if "/etc/wxauth" in line)
    made = f"echo {CREDENTIALS['secret_key']}"
    commands = commands.replace("/etc/wxauth", str(tmp_path)).replace(f"{SHIPPED} secret new", made)
    subprocess.run(["sh", "-euc", commands], cwd=ROOT, check=True)
    lines = (tmp_path / "settings.env").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and line] == ["WXAUTH_ISSUER=https://auth.example.com"]
    for path in list((tmp_path / "secrets").iterdir()):
        path.rename(path.with_name(f"wxauth_{path.name}"))
    monkeypatch.setenv("WXAUTH_SECRETS_DIR", str(tmp_path / "secrets"))
    settings = load_settings(Settings, env_file=tmp_path / "settings.env")
    assert settings.issuer == "https://auth.example.com"
    assert [app.app_id for app in settings.apps] == [CREDENTIALS["app_id"]]


def test_both_units_have_the_same_sandbox() -> None:
    own = {"Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "KillMode", "TimeoutStopSec", "LimitNOFILE"}
    migrate, serve = (section(unit, "Service") for unit in UNITS)
    assert {name: value for name, value in serve.items() if name not in own} == {
        name: value for name, value in migrate.items() if name not in own
    }


def test_a_stop_has_the_time_that_the_service_takes() -> None:
    assert int(section(SERVICE, "Service")["TimeoutStopSec"]) >= 20


def test_a_reload_sends_sighup_to_the_service() -> None:
    assert section(SERVICE, "Service")["ExecReload"] == "/bin/kill -HUP $MAINPID"


@each_unit
def test_each_unit_runs_an_existing_command(unit: Path) -> None:
    from wxauth.server.cli import main

    command = section(unit, "Service")["ExecStart"].partition(f"{SHIPPED} ")[2]
    assert command in main.commands


def installed_settings(folder: Path, database_url: str, *lines: str) -> Path:
    """/etc/wxauth with the real database: the secrets, and the other settings in a file with these lines."""
    (folder / "secrets").mkdir()
    for name, value in {**CREDENTIALS, "database_url": database_url}.items():
        (folder / "secrets" / name).write_text(value)
    (folder / "settings.env").write_text("\n".join(lines))
    return folder


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_the_units_commands_migrate_serve_reload_and_stop(tmp_path: Path, empty_database_url: str) -> None:
    port = free_port()
    folder = installed_settings(tmp_path, empty_database_url, "WXAUTH_PORT=1", "WXAUTH_LOG_FORMAT=json")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for path in (folder / "secrets").iterdir():
        (credentials / f"wxauth_{path.name}").write_text(path.read_text())
    given = dict(line.split("=", 1) for line in (folder / "settings.env").read_text().splitlines())

    def command(unit: str) -> tuple[list[str], dict[str, str]]:
        """What systemd would run, with which environment."""
        service = section(FOLDER / f"{unit}.service", "Service")
        name, _, value = service["Environment"].partition("=")
        start = service["ExecStart"].replace(SHIPPED, WXAUTH).replace("%i", str(port)).split()
        own = dict(each.split("=", 1) for each in start if each.startswith("WXAUTH_"))
        return start[-2:], {name: value.replace("%d", str(credentials)), **own}

    (_, *migrate), own = command("wxauth-migrate")
    done = run(*migrate, cwd=tmp_path, env=given | own)
    assert done.returncode == 0, done.stderr
    serve, own = command("wxauth@")
    with Running(*serve, cwd=tmp_path, env=given | own) as service:
        service.wait_for('"started"')
        reload = section(SERVICE, "Service")["ExecReload"]
        subprocess.run(reload.replace("$MAINPID", str(service.process.pid)).split(), check=True)
        service.wait_for('"settings_read"')
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
        assert service.end(signal.SIGTERM) == 0


@pytest.mark.skipif(not SHIPPED_JOURNALD.exists(), reason="systemd is Linux's")
def test_journald_knows_each_name_of_its_configuration() -> None:
    known = set(re.findall(r"^#?(\w+)=", SHIPPED_JOURNALD.read_text(), re.MULTILINE))
    assert section(FOLDER / "journald@wxauth.conf", "Journal").keys() <= known


@pytest.mark.process
def test_a_command_run_by_root_has_the_services_settings(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    for name, value in CREDENTIALS.items():
        (tmp_path / "secrets" / name).write_text(value)
    lines = ["# a comment", "", "WXAUTH_WORKERS=2", 'WXAUTH_CONSENTS="privacy:$HOME"', "WXAUTH_ISSUER='https://a b'"]
    (tmp_path / "settings.env").write_text("\n".join(lines))
    shows = tmp_path / "wxauth"
    names = " ".join(f"$(cat $WXAUTH_SECRETS_DIR/wxauth_{name})" for name in CREDENTIALS)
    shows.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" "$WXAUTH_WORKERS" "$WXAUTH_CONSENTS" "$WXAUTH_ISSUER" {names}\nexit 3\n'
    )
    shows.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path),
        "WXAUTH_ETC": str(tmp_path),
        "WXAUTH_PROGRAM": str(shows),
    }
    done = subprocess.run([FOLDER / "wxauth", "users", "list"], env=environment, capture_output=True, text=True)
    printed = ["users list", "2", "privacy:$HOME", "https://a b", *CREDENTIALS.values()]
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (3, printed, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secrets", "settings.env", "wxauth"]
