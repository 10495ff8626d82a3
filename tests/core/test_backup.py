"""A backup is made and restored with the commands in the guides.

The tests show what a restored backup contains and what is lost.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from tests.docs import ROOT, both_languages, code_blocks, guide
from tests.forked import stand_in
from tests.problems import problem_of
from tests.programs import lacks, postgres_program
from tests.world import LogIn, Stage, bearer, leave
from wxauth.core.database import Database
from wxauth.core.migrations import migrate
from wxauth.core.models import all_tables
from wxauth_desk.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.own_database, pytest.mark.process]

WRAPPER = ROOT / "deploy/systemd/wxauth"


async def test_a_restored_backup_has_who_was_in_it_and_nobody_since(
    stage: Stage, database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    dump = f"{tmp_path}/wxauth.dump"
    alice, carol = await stage.login("alice", nickname="小爱"), await stage.login("carol")
    run_program("pg_dump", "--format=custom", f"--file={dump}", database_url)
    rotated = (await stage.refresh(alice)).json()
    bob = await stage.login("bob")
    assert (await leave(stage.client, carol)).status_code == 204
    run_program("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={empty_database_url}", dump)
    served = await stage.make(database_url=empty_database_url)

    assert (await served.get("/v1/me", headers=bearer(alice))).json() == alice["user"]
    # The restored database doesn't contain the rotation, so the refresh token is newer than the stored one. wxauth has
    # issued it, so the session continues.
    answer = await served.post("/v1/refresh", json={"refresh_token": rotated["refresh_token"]})
    assert answer.json()["session_id"] == alice["session_id"]
    problem_of(await served.get("/v1/me", headers=bearer(bob)), "invalid_token", 401)
    answer = await served.post("/v1/refresh", json={"refresh_token": bob["refresh_token"]})
    problem_of(answer, "invalid_refresh_token", 400)
    again = {person: await stage.login(person, at=served) for person in ("bob", "carol")}
    assert again["bob"]["is_new_user"] is True
    assert again["bob"]["user"]["id"] != bob["user"]["id"]
    assert again["carol"]["user"]["id"] == carol["user"]["id"]


def run_program(name: str, *arguments: str) -> None:
    subprocess.run([postgres_program(name), *arguments], check=True, capture_output=True)


def run_shown(text: str, folder: Path, environment: dict[str, str]) -> str:
    """Run the commands, and return their output. They leave one file that only its owner can read."""
    done = subprocess.run(["sh", "-euc", text], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [file] = folder.glob("*.dump*")
    assert file.suffix == ".dump"
    assert file.stat().st_mode & 0o077 == 0
    return done.stdout


@both_languages
async def test_the_backup_and_restore_commands_shown_work_under_systemd_with_a_poolers_url_in_a_file(
    login: LogIn, database_url: str, empty_database_url: str, tmp_path: Path, language: str
) -> None:
    await login("alice")
    secret = tmp_path / "secrets/database_url"
    secret.parent.mkdir()
    secret.write_text(f"{database_url}&pgbouncer=prepared")
    (tmp_path / "settings.env").write_text(f"WXAUTH_DATABASE_URL={empty_database_url}")
    shown = code_blocks(guide("backups", language), "sh")
    [dump] = [block for block in shown if "pg_dump --format" in block]
    [drill] = [block for block in shown if "dropdb drill" in block]
    script = (WRAPPER.parent / "wxauth-backup").read_text().splitlines()
    folder, dump = dump.split("\n", 1)
    assert folder == "install -d -m 700 /backup"
    script = [
        line.replace('"${WXAUTH_ETC:-/etc/wxauth}/', "/etc/wxauth/").replace('url")"', 'url)"') for line in script
    ]
    assert [line for line in dump.splitlines() if line not in script] == []
    dump, drill = dump.replace("/backup", str(tmp_path)), drill.replace("sudo -u postgres ", "")
    name = f"drill_of_{urlsplit(database_url).path.strip('/')}"
    for here, there in (
        ("/etc/wxauth/secrets/database_url", str(secret)),
        ("/drill#", f"/{name}#"),
        ("createdb drill --owner=wxauth", f"createdb {name} --owner=postgres"),
        ("dropdb drill", f"dropdb {name}"),
        # `wxauth check` sends requests to WeChat, and its own tests cover its messages about the database.
        ("wxauth check\n", "wxauth keys list\n"),
    ):
        assert (dump + drill).count(here) == 1
        dump, drill = dump.replace(here, there), drill.replace(here, there)
    server = parse_qs(urlsplit(database_url).query)
    programs = tmp_path / "programs"
    programs.mkdir()
    environment = {
        "PATH": f"{WRAPPER.parent}:{Path(postgres_program('psql')).parent}:{os.environ['PATH']}",
        "WXAUTH_ETC": str(tmp_path),
        "WXAUTH_PROGRAM": str(stand_in(programs)),
        "PGHOST": server["host"][0],
        "PGPORT": server["port"][0],
        "PGUSER": "postgres",
    }
    done = await asyncio.to_thread(run_shown, dump + drill, tmp_path, environment)
    assert "    1 |" in done  # the row shows the number of users and the time of the newest login
    assert "schema at" in done
    own = await asyncpg.connect(empty_database_url)
    assert await own.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0, "it was not migrated"
    await own.close()


def old_and_new(backups: Path) -> None:
    """Make a dump that is older than 30 days, and a newer one."""
    backups.mkdir()
    for days in (29, 32):
        made = backups / f"wxauth-{days}-days.dump"
        made.touch()
        at = time.time() - days * 86_400
        os.utime(made, (at, at))


async def test_the_nightly_script_reads_its_settings_from_wxauth_etc_and_deletes_old_dumps(
    database_url: str, tmp_path: Path
) -> None:
    backups, secret = tmp_path / "backup", tmp_path / "etc/secrets/database_url"
    old_and_new(backups)
    secret.parent.mkdir(parents=True)
    secret.write_text(f"{database_url}&pgbouncer=true")
    text = (WRAPPER.parent / "wxauth-backup").read_text().replace("/backup", str(backups))
    path = f"{Path(postgres_program('psql')).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "WXAUTH_ETC": str(tmp_path / "etc"), "PGUSER": "postgres"}
    done = await asyncio.to_thread(subprocess.run, ["sh", "-c", text], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in backups.iterdir()} == {
        "wxauth-29-days.dump",
        f"wxauth-{datetime.now().astimezone().date()}.dump",
    }


@both_languages
@pytest.mark.parametrize("succeeds", [True, False])
def test_the_cron_job_for_compose_deletes_old_dumps_only_after_a_backup(
    tmp_path: Path, language: str, succeeds: bool
) -> None:
    [shown] = [block for block in code_blocks(guide("backups", language), "sh") if "/etc/cron.d/wxauth-backup" in block]
    [line] = [line.partition(" root ")[2] for line in shown.splitlines() if line.startswith("30 3 ")]
    backups, programs = tmp_path / "backup", tmp_path / "programs"
    old_and_new(backups)
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(f"#!/bin/sh\necho dumped\n{'exit 0' if succeeds else 'exit 1'}\n")
    docker.chmod(0o755)
    line = line.replace("\\%", "%").replace("/root/wxauth/deploy/compose", str(tmp_path))
    line = line.replace("/backup", str(backups))
    env = {"PATH": f"{programs}:{os.environ['PATH']}"}
    assert (subprocess.run(["sh", "-c", line], env=env).returncode == 0) is succeeds
    found = {file.name for file in backups.iterdir()}
    old, new = "wxauth-32-days.dump", f"wxauth-{datetime.now().astimezone().date()}.dump"
    assert (old in found, new in found, "wxauth-29-days.dump" in found) == (not succeeds, succeeds, True)


@pytest.fixture
def older(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that is older than the programs that the page's commands find."""
    programs = Path("/usr/lib/postgresql/15/bin")
    if not programs.is_dir():
        lacks("needs PostgreSQL 15: apt-get install postgresql-15 请先安装 postgresql-15")
    with EmbeddedPostgres(folder / "data", lasting=False, programs=programs) as server:
        yield server


@both_languages
@pytest.mark.slow
async def test_the_commands_shown_work_where_the_server_is_older_than_its_clients(
    tmp_path: Path, older: EmbeddedPostgres, language: str
) -> None:
    [dump] = [block for block in code_blocks(guide("backups", language), "sh") if "pg_dump --format" in block]
    [drill] = [block for block in code_blocks(guide("backups", language), "sh") if "dropdb drill" in block]
    [copy] = [block for block in code_blocks(guide("database", language), "sh") if "pg_dump --schema-only" in block]
    copy = copy.partition("\n")[0]
    counted = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    async with aclosing(Database(older.url())) as database:
        await migrate(database)
    server = {name: value[0] for name, value in parse_qs(urlsplit(older.url()).query).items()}
    environment = {
        "PATH": f"{Path(postgres_program('psql')).parent}:{os.environ['PATH']}",
        "PGHOST": server["host"],
        "PGPORT": server["port"],
        "PGUSER": "postgres",
        "OLD": older.url(),
        "NEW": older.url("copy"),
    }
    (tmp_path / "url").write_text(older.url())
    restore = drill.partition("export ")[0].replace("--owner=wxauth", "").replace("sudo -u postgres ", "")
    dump = dump.replace("/etc/wxauth/secrets/database_url", f"{tmp_path}/url").replace("/backup", str(tmp_path))
    text = f'{dump}{restore}psql drill -Atc "{counted}"; createdb copy; {copy}; psql copy -Atc "{counted}"'
    done = await asyncio.to_thread(run_shown, text, tmp_path, environment)
    tables = str(len(all_tables().tables) + 1)
    assert [line for line in done.splitlines() if line == tables] == [tables] * 2


@both_languages
def test_behind_a_pooler_the_commands_shown_connect_directly_to_postgresql(tmp_path: Path, language: str) -> None:
    [dump] = [block for block in code_blocks(guide("backups", language), "sh") if "pg_dump --format" in block]
    found = []
    for url in (
        "postgresql://wxauth:p%40ss@pooler:6432/wxauth?pgbouncer=prepared",
        "postgresql://wxauth:p%40ss@pooler:6432/wxauth?pgbouncer=true&sslmode=require",
        "postgresql://wxauth:p%40ss@pooler:6432/wxauth?sslmode=require&pgbouncer=true",
    ):
        (tmp_path / "url").write_text(url)
        lines = [line for line in dump.splitlines() if line.startswith(("url=", "server="))]
        text = "\n".join(lines).replace("/etc/wxauth/secrets/database_url", f"{tmp_path}/url")
        text = text.replace("server=", "server=db:5432") + '\necho "$url"'
        found.append(subprocess.run(["sh", "-euc", text], capture_output=True, text=True, check=True).stdout.strip())
    own = "postgresql://wxauth:p%40ss@db:5432/wxauth"
    assert found == [own, f"{own}?sslmode=require", f"{own}?sslmode=require"]
