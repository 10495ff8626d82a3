"""Users of databases of MySQL move in by the statements for them, on a real MariaDB."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.docs import ROOT
from tests.import_export.mover import Mover
from tests.processes import until
from tests.programs import needs
from tests.world import Rows, Stage
from wxauth_desk.wechat import APPS

pytestmark = [pytest.mark.operations]

# The columns of yudao's own tables that its social login and these statements touch.
TABLES = """
CREATE TABLE system_social_user (id bigint UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, type tinyint NOT NULL,
  openid varchar(32) NOT NULL, token varchar(256), raw_token_info varchar(1024) NOT NULL, nickname varchar(32) NOT NULL,
  deleted bit(1) NOT NULL DEFAULT b'0', tenant_id bigint NOT NULL DEFAULT 0) COLLATE utf8mb4_unicode_ci;
CREATE TABLE system_social_user_bind (id bigint UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, user_id bigint NOT NULL,
  user_type tinyint NOT NULL, social_type tinyint NOT NULL, social_user_id bigint NOT NULL,
  deleted bit(1) NOT NULL DEFAULT b'0', tenant_id bigint NOT NULL DEFAULT 0) COLLATE utf8mb4_unicode_ci;
CREATE TABLE member_user (id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY, mobile varchar(11),
  password varchar(100) NOT NULL DEFAULT '', status tinyint NOT NULL, register_ip varchar(32) NOT NULL,
  login_date datetime, nickname varchar(30) NOT NULL DEFAULT '', avatar varchar(255) NOT NULL DEFAULT '',
  create_time datetime NOT NULL DEFAULT CURRENT_TIMESTAMP,
  deleted bit(1) NOT NULL DEFAULT b'0', tenant_id bigint NOT NULL DEFAULT 0) COLLATE utf8mb4_unicode_ci;
"""
OPENID = "oYudao0000000000000000000{:03}"
UNIONID = "oUnion0000000000000000000{:03}"
MEMBERS = [  # id, mobile, status, nickname, avatar, deleted, tenant_id
    (101, "13800138101", 0, "Ann", "http://thirdwx.qlogo.cn/mmopen/1", 0, 1),
    (102, None, 0, "by unionid alone", "", 0, 1),
    (103, "13800138103", 1, "banned", "", 0, 1),
    (104, "13800138104", 0, "by number alone", "", 0, 1),
    (105, None, 0, "deleted", "", 1, 1),
    (106, None, 0, "of another tenant", "", 0, 2),
    (107, None, 0, "in both apps", "", 0, 1),
    (108, "13800138108", 0, "one of two numbers", "", 0, 1),
    (109, "13800138108", 0, "the other", "", 0, 1),
]
SOCIAL = [  # of member, type, openid, raw_token_info, deleted
    (101, 34, OPENID.format(101), '{"openId":"x","unionId":null,"session_key":"k"}', 0),
    (102, 31, OPENID.format(902), json.dumps({"unionId": UNIONID.format(102)}), 0),
    (103, 34, OPENID.format(103), "not JSON, because the column was too short", 0),
    (105, 34, OPENID.format(105), "{}", 0),
    (106, 34, OPENID.format(106), "{}", 0),
    (107, 34, OPENID.format(107), "{}", 0),
    (107, 31, OPENID.format(907), "{}", 0),
    (104, 34, OPENID.format(104), "{}", 1),
]


class MariaDB:
    """A server on a socket."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "socket"

    def run(self, statements: str) -> str:
        command = [needs("mariadb"), f"--socket={self._socket}", "--raw", "--batch", "--skip-column-names"]
        done = subprocess.run([*command, "shop"], input=statements, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_there(self) -> bool:
        command = [needs("mariadb"), f"--socket={self._socket}", "--execute", "CREATE DATABASE IF NOT EXISTS shop"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@pytest.fixture
def mariadb(tmp_path: Path) -> Iterator[MariaDB]:
    server, install = needs("mariadbd"), needs("mariadb-install-db")
    user = f"--user={os.environ.get('USER', 'root')}" if os.getuid() == 0 else "--skip-log-bin"
    data = [f"--datadir={tmp_path / 'data'}", user]
    subprocess.run(
        [install, "--no-defaults", *data, "--auth-root-authentication-method=socket"], check=True, timeout=60
    )
    options = [
        "--no-defaults",
        *data,
        "--skip-networking",
        f"--socket={tmp_path / 'socket'}",
        "--innodb-fast-shutdown=2",
    ]
    with subprocess.Popen([server, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            started = MariaDB(tmp_path)
            until(started.is_there)
            yield started
        finally:
            process.terminate()


def literal(value: object) -> str:
    return (
        "NULL" if value is None else str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
    )


def fill(mariadb: MariaDB) -> None:
    mariadb.run(TABLES)
    for member in MEMBERS:
        columns = "id, mobile, status, nickname, avatar, deleted, tenant_id, register_ip"
        mariadb.run(f"INSERT INTO member_user ({columns}) VALUES ({', '.join(map(literal, member))}, '')")
    tenants = {member[0]: member[-1] for member in MEMBERS}
    for number, (owner, kind, openid, raw, deleted) in enumerate(SOCIAL, 1):
        values = ", ".join(map(literal, (number, kind, openid, raw, "", deleted, tenants[owner])))
        columns = "id, type, openid, raw_token_info, nickname, deleted, tenant_id"
        mariadb.run(f"INSERT INTO system_social_user ({columns}) VALUES ({values})")
        columns = "user_id, user_type, social_type, social_user_id, tenant_id"
        mariadb.run(
            f"INSERT INTO system_social_user_bind ({columns}) VALUES ({owner}, 1, {kind}, {number}, {tenants[owner]})"
        )


def statements(name: str) -> list[str]:
    text = re.sub(r"(?m)--.*$", "", (ROOT / "examples/moving-in" / name).read_text())
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def with_values(statement: str, **values: object) -> str:
    return re.sub(r":(\w+)", lambda name: literal(values[name[1]]), statement)


def row_of(mariadb: MariaDB, find: str, claims: list[str], **values: object) -> str:
    for claim in claims:
        if found := mariadb.run(with_values(find, **values)):
            return found.strip()
        if mariadb.run(with_values(claim, **values)):
            return "409"
    return mariadb.run(with_values(find, **values)).strip()


async def test_members_of_yudao_are_exported_as_the_import_takes_them(
    mariadb: MariaDB, stage: Stage, rows: Rows
) -> None:
    fill(mariadb)
    export, *_ = statements("yudao.sql")
    mini, account = APPS[0]["app_id"], APPS[1]["app_id"]
    text = mariadb.run(export.replace("wx1a2b3c4d5e6f7a8b", mini).replace("wx5d6e7f8a9b0c1d2e", account))
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["external_id"], line["app_id"] == mini) for line in lines] == [
        ("101", True),
        ("102", False),
        ("103", True),
        ("107", True),
        ("107", False),
    ]
    assert lines[0] | {"created_at": None} == {
        "app_id": mini,
        "openid": OPENID.format(101),
        "unionid": None,
        "external_id": "101",
        "nickname": "Ann",
        "avatar_url": "https://thirdwx.qlogo.cn/mmopen/1",
        "phone": "+8613800138101",
        "status": "active",
        "created_at": None,
        "last_login_at": None,
    }
    assert lines[1]["unionid"] == UNIONID.format(102)
    stage = await stage.replica(apps=APPS)
    counts = await Mover(stage).import_lines(*lines)
    assert counts == (4, 1, 0, 0)
    assert await rows.fetchval("SELECT count(*) FROM users") == 4
    assert await rows.fetchval("SELECT count(*) FROM identities") == 5
    assert await rows.fetchval("SELECT external_id FROM users WHERE status = 'disabled'") == "103"


def test_a_login_claims_a_row_of_yudaos_members_or_inserts_one(mariadb: MariaDB) -> None:
    fill(mariadb)
    _, once, find, *claims = statements("yudao.sql")
    mariadb.run(once)

    def login(external_id: int | None = None, openid: str = "o", mobile: str | None = None, tenant: int = 1) -> str:
        user = str(uuid4())
        values = {"tenant_id": tenant, "id": user, "external_id": external_id, "openid": openid, "mobile": mobile}
        with ThreadPoolExecutor(5) as requests:
            found = {
                each.result() for each in [requests.submit(row_of, mariadb, find, claims, **values) for _ in range(5)]
            }
        (row,) = found
        return row

    known = {
        "imported": login(101),
        "by openid": login(openid=OPENID.format(103)),
        "by number": login(mobile="13800138104"),
        "another tenant's": login(openid=OPENID.format(106), tenant=2),
    }
    assert list(known.values()) == ["101", "103", "104", "106"]
    strangers = [
        login(101),  # somebody else has it
        login(105),  # deleted
        login(openid=OPENID.format(107).swapcase()),  # another openid
        login(106),  # another tenant's
    ]
    assert len({*strangers}) == 4
    assert min(map(int, strangers)) > 109
    new = login(mobile="13800138999")
    assert int(new) > 109
    assert [login(mobile="13800138108"), login(mobile="13800138999")] == ["409", "409"], "one row for each number"
    assert mariadb.run("SELECT count(*) FROM member_user").strip() == "14"


def test_a_login_claims_a_row_of_a_table_of_ones_own_or_inserts_one(mariadb: MariaDB) -> None:
    once, find, *claims, again, store = statements("claim-mysql.sql")
    assert again == find
    claims = [claim for claim in claims if "SET openid = NULL" not in claim]
    mariadb.run(
        "CREATE TABLE customers (id int AUTO_INCREMENT PRIMARY KEY, openid varchar(64) NOT NULL, phone varchar(20))"
    )
    mariadb.run(
        "INSERT INTO customers (openid, phone)"
        " VALUES ('o-a', NULL), ('o-b', NULL), ('', '139'), ('', '138'), ('', '138')"
    )
    mariadb.run(once)

    def login(external_id: int | None = None, openid: str | None = None, phone: str | None = None) -> str:
        values = {"id": str(uuid4()), "external_id": external_id, "openid": openid, "phone": phone}
        with ThreadPoolExecutor(5) as requests:
            found = {
                each.result() for each in [requests.submit(row_of, mariadb, find, claims, **values) for _ in range(5)]
            }
        (row,) = found
        mariadb.run(with_values(store, **values))
        return row

    assert [login(1, "o-new"), login(openid="o-b"), login(phone="139")] == ["1", "2", "3"]
    strangers = [login(1), login(openid="O-B"), login(phone="138"), login(openid="")]
    assert len({*strangers}) == 4
    assert min(map(int, strangers)) > 5
    assert mariadb.run("SELECT openid FROM customers WHERE id < 4").split("\n")[:2] == ["o-new", "o-b"]
    assert mariadb.run("SELECT count(*) FROM customers").strip() == "9"
