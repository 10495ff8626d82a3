"""Settings come from `WXAUTH_*` variables, from `.env` or from files.

An error names a wrong setting, but not its value.
"""

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
from pydantic import SecretStr

from tests.fakes import APP, OTHER_APP, SECRET_KEY
from tests.processes import environment, free_port, run
from tests.sweeps import swept
from wxauth.settings.loading import load_settings, setting_faults
from wxauth.settings.settings import InvalidSettings, Settings
from wxauth.settings.urls import host_of

DATABASE_URL = "postgresql://wxauth:hunter2@db.internal/wxauth"
UNENCODED = ["hunter2[", "hunter2]", "[1]", "hunter2＠x", "hunter2：x", "hunter2／x", "hunter2℀", "hunter2\t"]
"""Passwords with a character that Python or Unicode drops or treats as a separator."""
REQUIRED = {"DATABASE_URL": DATABASE_URL, "SECRET_KEY": SECRET_KEY, "APPS": json.dumps([APP])}

OWN_RULES = {
    "DATABASE_URL": [
        "mysql://wxauth:hunter2@db/wxauth",
        "postgresql://wxauth:hunter2@hunter3@db/wxauth",
        "hunter2",
        "",
        "postgresql://wxauth:hunter2@db:port/wxauth",
        "postgresql://wxauth:hunter2@db:99999/wxauth",
        "postgresql://wxauth:hunter2@/wxauth?host=a&port=abc",
        "postgresql://wxauth:hunter2@/wxauth?host=a,b,c&port=1,2",
        "postgresql://wxauth:hunter2#@db/wxauth",
        "postgresql://wxauth:hunter2/x@db/wxauth",
        "postgresql://postgresql://wxauth:hunter2@db/wxauth",
        "postgresql://wxauth:2024/hunter2@db/wxauth",
        "postgresql://wxauth:2024?hunter2@db/wxauth",
        "postgresql://wxauth:2024/?hunter2@db/wxauth",
        "postgresql://wxauth:2024/x?y&hunter2@db/wxauth",
        "postgresql://db:5432/hunter2@db/wxauth",
        "postgresql://db/wxauth?application_name=hunter2@x",
        *(f"postgresql://wxauth:{password}@db/wxauth" for password in UNENCODED),
    ],
    "APP_ID": ["wx 1"],
    "APPS": [
        "hunter2",
        '{"wx1": "hunter2"}',
        '[{"app_id": "wx1"}]',
        '[{"app_id": "wx1", "app_secret": ""}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "claims": {"n": [9007199254740993]}}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "claims": {"n": 0.1000000000000000055}}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "claims": {"n": 1, "n": 1}}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "hunter3": 1}]',
        '[{"app_id": "wx1", "app_secret": "hunter2"}, {"app_id": "wx1", "app_secret": "hunter3"}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "hunter2 hunter3"}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "h2"}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "hunter2hunter2hunter2hunter2hunter2"}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "hunter2", "push_aes_key": "hunter2"}]',
        f'[{{"app_id": "wx1", "app_secret": "hunter2", "push_aes_key": "{"hunter2" * 6}h"}}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "sign_up": "hunter3"}]',
        '[{"app_id": "wx1", "app_secret": "hunter2", "sign_up_roles": ["admin"]}]',
        *(
            json.dumps([{"app_id": "wx1", "app_secret": "hunter2", "title": title}])
            for title in ("a\nb", "a\tb", "a\u202eb", "a\u200b\u200bb", "\ue000", "\u2800", "a" * 65)
        ),
    ],
    "LINK_PHONE_DAYS": ["0"],
    "CONSENTS": ["hunter2", "hunter2:", "Hunter2:1", "privacy:1,privacy:2"],
    "EVENTS_KEPT_DAYS": ["179", "-181"],
    "SECRET_KEY": ["", "hunter2", "密钥", SECRET_KEY[:-4]],
    "SECRET_KEY_PREVIOUS": [f"{SECRET_KEY},hunter2"],
    "ISSUER": [
        "auth.example.com",
        "http://auth.example.com",
        "https://auth.example.com/",
        "https://auth.example.com?tenant=1",
        "https://user:hunter2@auth.example.com",
        "https://auth.example.com:port",
        "https://[hunter2]",
        " https://auth.example.com",
        "https://auth.example.com/a%20b",
        "https://auth.example.com/v1",
        "https://auth.example.com/admin",
        "https://auth.example.com/d/wx",
        "https://https://auth.example.com",
        "https://https//auth.example.com",
        "https://auth.example.com:",
        "https://[::1]hunter2",
        "https://\u200bauth.example.com",
        "https://auth.example.com:８０",
        *(f"https://wxauth:{password}@auth.example.com" for password in UNENCODED),
    ],
    "AUDIENCE": [
        "",
        *(
            "https://api.example.com",
            "http://127.0.0.1:8005/mcp",
            "HTTPS://API.example.com",
            " https://api.example.com",
        ),
        *("https://", "https://[", "http://api.example.com?a=b", "ftp://api.example.com", "api://orders"),
    ],
    "ACCESS_TOKEN_TTL": ["0", "86401", "15m"],
    "REFRESH_TOKEN_TTL": ["9" * 12],
    "SCAN_PAGE": ["/pages/scan/scan", "pages/scan/scan?a=1", ""],
    "SITE_PAGE": ["/pages/authorize/authorize"],
    "SIGN_UP_ROLES": ["member,admin"],
    "CLAIMS": [
        "[]",
        '{"n": 9007199254740993}',
        '{"n": [0.1000000000000000055]}',
        '{"n": 1e400}',
        '{"n": NaN}',
        '{"n": 1, "n": 1}',
        '{"n": {"a": 1, "a": 1}}',
        '{"n": "\\uffff"}',
        '{"n": "\\ud83d"}',
    ],
    "SIGN_UP_HOOK_URL": [
        "ftp://x",
        "https://https://hooks.example.com/",
        *(f"https://wxauth:{password}@hooks.example.com/" for password in UNENCODED),
        "http://8.8.8.8/",
        "https://169.254.169.254/",
        "https://169.254.169.254./",
        "http://2852039166/",
        "https://[::ffff:a9fe:a9fe]/",
    ],
    "SIGN_UP_HOOK_SECRET": ["whsec_short"],
    "SIGN_UP_HOOK_TIMEOUT": ["0"],
    "PHONE_REGION": ["China", ""],
    "ERASURE_GRACE_DAYS": ["16"],
    "ENDED_SESSIONS_KEPT_DAYS": ["0"],
    "SCAN_RATE_LIMIT": ["many"],
    "SCAN_CLIENT_LIMIT": ["0/second"],
    "SCAN_PICTURE_LIMIT": ["5000"],
    "WEB_SESSION_TTL": ["0"],
    "RESOURCES": ["[{hunter2", '{"resource": "https://hunter2.test"}'],
    "CLIENT_DOCUMENTS": [
        "https://hunter2.test",
        "hunter2.test/path",
        "Hunter2.test",
        "hunter2.test",
        "hunter2.test:0",
        "hunter2.test:65536",
        "[1:2]",
        "[127.0.0.1]",
        "1.2.3.999",
    ],
    "CHECK_FILES": ["nothing", "docs:hunter2", "v1/me:hunter2", "a.txt:hunter2,a.txt:hunter3"],
    "LINK_CHECK_FILE": ["nothing", "../name.txt:content", "name.txt:"],
    "SESSION_MAX_AGE": ["0"],
    "SIGNING_KEY_MAX_AGE": ["59"],
    "WECHAT_BASE_URL": ["http://api.weixin.qq.com", "api.weixin.qq.com"],
    "WECHAT_FALLBACK_URL": ["ftp://api2.weixin.qq.com"],
    "WECHAT_OPEN_URL": ["http://open.weixin.qq.com"],
    "WECHAT_TIMEOUT": ["0", "nan"],
    "WECHAT_PROXY": [
        "proxy.internal:3128",
        "http://proxy.internal",
        "https://wxauth:hunter2@proxy.internal:3128",
        "socks5://wxauth:hunter2@proxy.internal:1080",
        "http://wxauth:hunter2@proxy.internal:port",
        "http://wxauth:hunter2@proxy.internal:99999",
        "http://wxauth:hunter2@x@proxy.internal:3128",
        "http://wxauth:hunter2/x@proxy.internal:3128",
        "http://:hunter2@proxy.internal:3128",
        "http://proxy.internal:3128/hunter2",
        "http://http://proxy.internal:3128",
        *(f"http://wxauth:{password}@proxy.internal:3128" for password in UNENCODED),
    ],
    "RECEIVERS_PROXY": [
        "proxy.internal:3128",
        "http://proxy.internal",
        "socks5://wxauth:hunter2@proxy.internal:1080",
        "https://wxauth:hunter2@proxy.internal:port",
        "https://wxauth:hunter2@proxy.internal:99999",
        "https://wxauth:hunter2@x@proxy.internal:3128",
        "https://:hunter2@proxy.internal:3128",
        "https://proxy.internal:3128/hunter2",
        *(f"https://wxauth:{password}@proxy.internal:3128" for password in UNENCODED),
    ],
    "REDIS_URL": [
        "http://:hunter2@redis",
        "redis://:hunter2@redis:port",
        "redis://:hunter2@redis-1:6379,redis-2:6379",
        "redis+sentinel://:hunter2@sentinel-1,sentinel-2",
        "redis+cluster://:hunter2@redis-1,redis-2/0",
        "rediss+cluster://:hunter2@redis-1:6379",
        "redis+sentinel://:hunter2@redis-1:26379/name?sentinel_password=hunter3",
        "redis://:hunter2@redis:99999",
        "redis://redis://:hunter2@redis",
        "redis://wxauth:2024?hunter2@redis:6379/0",
        "redis://wxauth:2024/?hunter2@redis:6379/0",
        "redis://redis?client_name=hunter2@x",
        "unix://wxauth:2024/hunter2@/run/redis.sock",
        *(
            f"{place}?{option}"
            for place in ("redis://:hunter2@redis", "rediss://:hunter2@redis", "unix://:hunter2@/run/redis.sock")
            for option in (
                "socket_timeout=hunter2",
                "max_connections=x",
                "db=abc",
                "health_check_interval=x",
                "hunter3=1",
            )
        ),
        *(f"redis://:{password}@redis" for password in UNENCODED),
        *(f"redis+cluster://:{password}@redis:6379" for password in UNENCODED),
    ],
    "SIGNING_KEY_LEAD": ["359", "604801", ""],
    "LOGIN_RATE_LIMIT": ["600 per minute", "many/minute"],
    "RATE_LIMIT_EXEMPT": ["office.example", "*", "0.0.0.0/0"],
    "TRUSTED_PROXIES": ["proxy.internal", "10.0.0.0/33", "*,10.0.0.0/8", "0.0.0.0/0", "10.0.0.0/8,::/0"],
    "CORS_ORIGINS": ["admin.example.com", "https://https://admin.example.com", "https://admin.example.com/page"],
    "OTLP_URL": ["https://hunter2@collector:4318", "http://http://collector:4318", "http://w:hunter2[@collector"],
    "HOST": [""],
    "PORT": ["0", "65536"],
    "SECRETS_DIR": ["/nothing/hunter2"],
    "WORKERS": ["0"],
}
"""Values that break a setting's own rule. For numbers, -1 and text are wrong, too, and for choices, any other word."""
PLAIN = {
    name.upper(): ["sometimes", *(["-1"] if field.annotation is int else [])]
    for name, field in Settings.model_fields.items()
    if field.annotation in (bool, int, float) or get_origin(field.annotation) is Literal
}
WRONG = [(name, value) for rules in (OWN_RULES, PLAIN) for name, values in rules.items() for value in values]


Load = Callable[..., Settings]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for `.env`, with a subfolder for secret files."""
    (tmp_path / "secrets").mkdir()
    return tmp_path


@pytest.fixture
def load(place: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """A function that loads settings from an environment with only these variables."""
    for name in os.environ:
        if name.upper().startswith("WXAUTH_"):
            monkeypatch.delenv(name)

    def load_from(kind: type[Any] = Settings, **values: str) -> Any:
        with monkeypatch.context() as environment:
            for name, value in values.items():
                environment.setenv(f"WXAUTH_{name}", value)
            return load_settings(kind, env_file=place / ".env", secrets_dir=place / "secrets")

    return load_from


def test_a_wrong_value_of_each_setting_is_tried() -> None:
    untried = {name.upper() for name in Settings.model_fields} - {name for name, _ in WRONG} - {"APP_SECRET"}
    assert not untried, f"add wrong values of {', '.join(sorted(untried))} to OWN_RULES of this file"


AN_APP_ID = "must be an AppID, such as wx0123456789abcdef"
TOO_LONG = "WXAUTH_SIGNING_KEY_LEAD: must be less than WXAUTH_SIGNING_KEY_MAX_AGE"
BOTH = "WXAUTH_APP_ID and WXAUTH_APP_SECRET: must both be set, unless you use WXAUTH_APPS"


@swept(
    ("given", "problems"),
    [
        ({"DATABASE_URL": None}, ["WXAUTH_DATABASE_URL: is required"]),
        ({"SECRET_KEY": None}, ["WXAUTH_SECRET_KEY: is required"]),
        (
            {"DATABASE_URL": None, "DATABSE_URL": DATABASE_URL},
            [
                "WXAUTH_DATABASE_URL: is required",
                "WXAUTH_DATABSE_URL: no such setting. Did you mean WXAUTH_DATABASE_URL?",
            ],
        ),
        ({"APP_ID": "wx…", "APP_SECRET": "x", "APPS": None}, [f"WXAUTH_APP_ID: {AN_APP_ID}"]),
        ({"APPS": '[{"app_id": "wx…", "app_secret": "x"}]'}, [f"WXAUTH_APPS[0].app_id: {AN_APP_ID}"]),
        ({"APPS": None, "APP_ID": "wx1"}, [BOTH]),
        ({"APPS": None, "APP_SECRET": "hunter2"}, [BOTH]),
        ({"SIGNING_KEY_LEAD": "3600", "SIGNING_KEY_MAX_AGE": "3600"}, [TOO_LONG]),
        ({"SIGNING_KEY_LEAD": "604800", "SIGNING_KEY_MAX_AGE": "604799"}, [TOO_LONG]),
        ({"APP_SECRET": "hunter 2"}, ["WXAUTH_APP_SECRET: must not be empty or contain whitespace"]),
        (
            {"APP_ID": "wx1", "APP_SECRET": "hunter2"},
            ["WXAUTH_APPS: must not be set together with WXAUTH_APP_ID and WXAUTH_APP_SECRET"],
        ),
    ],
)
def test_settings_that_contradict_are_named(load: Load, given: dict[str, str | None], problems: list[str]) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(**{name: value for name, value in {**REQUIRED, **given}.items() if value is not None})
    assert refused.value.problems == problems


@pytest.mark.slow
@swept(("name", "value"), WRONG)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(load: Load, name: str, value: str) -> None:
    given = REQUIRED | {name: value} | ({"APPS": "", "APP_SECRET": "x"} if name == "APP_ID" else {})
    with pytest.raises(InvalidSettings) as refused:
        load(**given)
    (problem,) = refused.value.problems
    assert re.match(rf"WXAUTH_{name}\S*: (must |is required$)", problem)
    assert "\n" not in problem
    for part in (value, "hunter2", "hunter3"):
        assert len(part) < 5 or part not in problem
    assert refused.value.__cause__ is None


@pytest.mark.process
def test_serve_names_all_wrong_settings_at_once_without_their_values(tmp_path: Path) -> None:
    wrong = {name: value for name, value in WRONG if name != "APP_ID" and len(value) > 4}
    (tmp_path / ".env").write_text("WXAUTH_PORT=http\n")
    stopped = run("serve", cwd=tmp_path, env={f"WXAUTH_{name}": wrong[name] for name in wrong.keys() - {"PORT"}})
    assert (stopped.returncode, stopped.stdout) == (1, "")
    lines = stopped.stderr.splitlines()
    assert len(lines) == len(wrong)
    for name, value in wrong.items():
        assert any(line.startswith(f"WXAUTH_{name}") for line in lines)
        assert value not in stopped.stderr


URL = "postgresql://wxauth:hunter2@db:5432/wxauth"
RIGHT: list[tuple[dict[str, str], str, object]] = [
    *(({"DATABASE_URL": url}, "database_url", URL) for url in (URL, URL.replace("postgresql:", "postgres:"))),
    ({"DATABASE_URL": URL.replace("postgresql:", "postgresql+asyncpg:")}, "database_url", URL),
    *(
        ({"DATABASE_URL": url}, "database_url", url)
        for url in (
            "postgresql://wxauth@one:5432,two:5433/wxauth?target_session_attrs=any",
            "postgresql:///wxauth?host=/var/run/postgresql",
            "postgresql://wxauth@/wxauth?sslmode=disable&host=/run/a@b&port=5433",
            "postgresql://wxauth:2024%2Fx@db:5432/wx%40auth?application_name=a%40b",
            "postgresql://wxauth:p%40ss%2Fword@[::1]:5432/wxauth?sslmode=require",
            "postgresql://wxauth@a:5432,[::1]:5432/wxauth",
            "postgresql://wxauth@%2Fvar%2Frun%2Fpostgresql/wxauth",
            "postgresql://wxauth:密码:^|{}@db_1.internal/wxauth",
        )
    ),
    *(
        ({"REDIS_URL": url}, "redis_url", url)
        for url in (
            "redis://redis",
            "rediss://wxauth:hunter%402@[::1]:6379/1?ssl_ca_certs=/ca.pem",
            "unix:///run/redis.sock?db=1",
            "unix://wxauth:hunter2@/run/a@b/redis.sock",
            "redis://redis/0?socket_timeout=1.5&max_connections=20&health_check_interval=10&client_name=a%40b&protocol=3",
            "redis+sentinel://:hunter2@a:26379,b:26379/main",
            "redis+cluster://a:6379,[::1]:6379",
            "redis+sentinel://:hunter2@[::1]:26379,b:26379,[::2]:26379/main",
        )
    ),
    *(
        ({"ISSUER": url}, "issuer", url)
        for url in (
            "https://auth.example.com",
            "https://example.com:8443/auth",
            "http://localhost:8000",
            "http://[::1]/a",
        )
    ),
    ({}, "wechat_fallback_url", "https://api2.weixin.qq.com"),
    ({"WECHAT_BASE_URL": "https://api.weixin.qq.com"}, "wechat_fallback_url", "https://api2.weixin.qq.com"),
    ({"WECHAT_BASE_URL": "https://wechat-proxy.internal"}, "wechat_fallback_url", None),
    ({"WECHAT_FALLBACK_URL": ""}, "wechat_fallback_url", None),
    ({"WECHAT_FALLBACK_URL": "https://sh.api.weixin.qq.com"}, "wechat_fallback_url", "https://sh.api.weixin.qq.com"),
    ({"SECRET_KEY_PREVIOUS": f"{SECRET_KEY}, {SECRET_KEY}"}, "secret_keys", [b64decode(SECRET_KEY)] * 3),
    ({"TRUSTED_PROXIES": "10.1.2.3/8, ::1"}, "trusted_proxies", ("10.0.0.0/8", "::1")),
    (
        {"CORS_ORIGINS": "https://a.example.com,http://b:5173"},
        "cors_origins",
        ("https://a.example.com", "http://b:5173"),
    ),
    ({"LOGIN_RATE_LIMIT": ""}, "login_rate_limit", ""),
    ({"TRUSTED_PROXIES": ""}, "trusted_proxies", ()),
    ({"REDIS_URL": ""}, "redis_url", None),
    *(
        ({"SIGNING_KEY_MAX_AGE": age}, "signing_key_lead", lead)
        for age, lead in (("7776000", 86400), ("86401", 86400), ("86400", 43200), ("3600", 1800))
    ),
    ({"LOG_FORMAT": "JSON"}, "log_format", "json"),
    ({"APPS": ""}, "apps", ()),
]


@swept(("given", "name", "value"), RIGHT)
def test_a_right_setting_is_read(load: Load, given: dict[str, str], name: str, value: object) -> None:
    read = getattr(load(**REQUIRED | given), name)
    assert (read.get_secret_value() if isinstance(read, SecretStr) else read) == value


def test_apps_are_a_list_in_its_order_or_a_single_one(load: Load) -> None:
    assert [app.app_id for app in load(**REQUIRED | {"APPS": json.dumps([OTHER_APP, APP])}).apps] == [
        *(OTHER_APP["app_id"], APP["app_id"])
    ]
    [app] = load(**REQUIRED | {"APPS": "", "APP_ID": APP["app_id"], "APP_SECRET": APP["app_secret"]}).apps
    assert (app.app_id, app.app_secret.get_secret_value()) == (APP["app_id"], APP["app_secret"])


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_on_a_terminal_the_log_is_for_people() -> None:
    terminal, end = os.openpty()
    program = """
import os
from wxauth.settings.loading import load_settings
from wxauth.settings.settings import DatabaseSettings
os.write(2, load_settings(DatabaseSettings).log_format.encode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(WXAUTH_DATABASE_URL=DATABASE_URL),
        stdout=end,
        stderr=subprocess.PIPE,
        check=True,
    )
    os.close(terminal)
    os.close(end)
    assert done.stderr == b"console"


def test_a_setting_may_be_a_line_of_the_env_file(load: Load, place: Path) -> None:
    lines = [f"WXAUTH_{name}='{value}'" for name, value in REQUIRED.items()]
    (place / ".env").write_text("\n".join([*lines, "WXAUTH_AUDIENCE=shop", "OTHER=thing", "# 注释"]))
    settings = load()
    assert (settings.audience, settings.apps[0].app_id) == ("shop", APP["app_id"])


def test_a_setting_may_be_a_file_with_a_byte_order_mark_and_in_any_case(load: Load, place: Path) -> None:
    (place / "secrets" / "wxauth_secret_key").write_text(f"{SECRET_KEY}\r\n", encoding="utf-8-sig")
    (place / "secrets" / "WXAUTH_APPS").write_text(json.dumps([APP]))
    (place / "secrets" / "other").write_text("thing")
    settings = load(DATABASE_URL=DATABASE_URL)
    assert (settings.secret_keys, settings.apps[0].app_id) == ([b64decode(SECRET_KEY)], APP["app_id"])


def test_a_file_may_be_a_link_out_of_the_folder(load: Load, place: Path) -> None:
    (place / "vault").write_text("shop")
    (place / "secrets" / "wxauth_audience").symlink_to(place / "vault")
    assert load(**REQUIRED).audience == "shop"
    (place / "vault").unlink()
    with pytest.raises(InvalidSettings, match=r"^WXAUTH_AUDIENCE: must be a readable UTF-8 text file$"):
        load(**REQUIRED)


def test_files_may_be_links_that_are_exchanged_together(load: Load, place: Path) -> None:
    """Kubernetes replaces files this way. Each file is a link through `..data`, which is a link to a folder."""
    secrets = place / "secrets"
    (secrets / "wxauth_audience").symlink_to("..data/wxauth_audience")
    for version in ("one", "two"):
        (secrets / f"..{version}").mkdir()
        (secrets / f"..{version}" / "wxauth_audience").write_text(version)
        (secrets / "..next").symlink_to(f"..{version}")
        (secrets / "..next").rename(secrets / "..data")
        assert load(**REQUIRED).audience == version


def test_the_environment_comes_before_the_env_file_and_that_before_files_of_any_folder(load: Load, place: Path) -> None:
    (place / "wxauth_audience").write_text("own")
    (place / "secrets" / "wxauth_audience").write_text("file")
    assert load(**REQUIRED).audience == "file"
    (place / ".env").write_text(f"WXAUTH_SECRETS_DIR={place}\n")
    assert load(**REQUIRED).audience == "own"
    assert load(**REQUIRED, SECRETS_DIR=str(place / "secrets")).audience == "file"
    (place / ".env").write_text("WXAUTH_AUDIENCE=env-file")
    assert load(**REQUIRED).audience == "env-file"
    assert load(**REQUIRED, AUDIENCE="environment").audience == "environment"


@pytest.mark.parametrize("name", [".env", "secrets/wxauth_audience"])
def test_a_file_that_is_not_utf_8_is_reported(load: Load, place: Path, name: str) -> None:
    (place / name).write_bytes(b"WXAUTH_AUDIENCE=\xff\xfe")
    with pytest.raises(InvalidSettings, match="UTF-8"):
        load(**REQUIRED)


def test_a_folder_in_the_place_of_a_file_is_reported(load: Load, place: Path) -> None:
    (place / "secrets" / "wxauth_audience").mkdir()
    with pytest.raises(InvalidSettings, match=r"^WXAUTH_AUDIENCE: must be a file, not a folder"):
        load(**REQUIRED)


def test_a_folder_of_files_that_cannot_be_read_is_reported_by_its_setting(load: Load) -> None:
    with pytest.raises(InvalidSettings, match=r"^WXAUTH_SECRETS_DIR: must be a readable folder$"):
        load(**REQUIRED, SECRETS_DIR="x" * 300)


WITHOUT_EQUALS = "WXAUTH_APP_SECRET: must be followed by '='"
SET_NOTHING = [
    ("WXAUTH_APP_SECRET＝hunter2", f"{WITHOUT_EQUALS}, not by '＝'"),
    ("WXAUTH_APP_SECRET＝hunter2=", f"{WITHOUT_EQUALS}, not by '＝'"),
    ("WXAUTH_DATABASE_URL ＝ hunter2?a=b", "WXAUTH_DATABASE_URL: must be followed by '=', not by '＝'"),
    ("WXAUTH_PUSH_AES_KEY＝hunter2=", "WXAUTH_PUSH_AES_KEY: must be followed by '=', not by '＝'"),
    ("WXAUTH_PUSH_AES_KEY=hunter2", "no such setting. Did you mean WXAUTH_APPS?"),
    ("WXAUTH_APP_SECRET：hunter2", f"{WITHOUT_EQUALS}, not by '：'"),
    ("WXAUTH_APP_SECRET:hunter2=", f"{WITHOUT_EQUALS}, not by ':'"),
    ("  WXAUTH_APP_SECRET: hunter2", f"{WITHOUT_EQUALS}, not by ':'"),
    ("export wxauth_app_secret : hunter2", f"{WITHOUT_EQUALS}, not by ':'"),
    ("WXAUTH_APP_SECREThunter2=", WITHOUT_EQUALS),
    ("WXAUTH_APP_SECRET hunter2", WITHOUT_EQUALS),
    ("WXAUTH_APP_SECRET+=hunter2", WITHOUT_EQUALS),
    ("WXAUTH_APP_SECRET", WITHOUT_EQUALS),
    ("set WXAUTH_APP_SECRET=hunter2", "WXAUTH_APP_SECRET: must be at the beginning of its line"),
    ("- WXAUTH_APP_SECRET=hunter2", "WXAUTH_APP_SECRET: must be at the beginning of its line"),
    ('"WXAUTH_APP_SECRET": "hunter2",', "WXAUTH_APP_SECRET: must be at the beginning of its line"),
    ('$env:WXAUTH_APP_SECRET = "hunter2"', "WXAUTH_APP_SECRET: must be at the beginning of its line"),
    ("hunter2 WXAUTH_APP_SECRET", "WXAUTH_APP_SECRET: must be at the beginning of its line"),
    ("WXAUTH_APP_SECRET=“hunter2”", "WXAUTH_APP_SECRET: must use straight quotes or no quotes"),
    (
        "WXAUTH_APP_SECRET='hunter2",
        "WXAUTH_APP_SECRET: a quoted value must end with a closing quote, and nothing may follow the quote",
    ),
    (
        'WXAUTH_APP_SECRET="hunter2" hunter3',
        "WXAUTH_APP_SECRET: a quoted value must end with a closing quote, and nothing may follow the quote",
    ),
    ('WXAUTH_APPS:[{"app_secret":"hunter2"}]=', "WXAUTH_APPS: must be followed by '=', not by ':'"),
    ("WXAUTH_ACCES_TOKEN_TTL=900", "no such setting. Did you mean WXAUTH_ACCESS_TOKEN_TTL?"),
    ("wxauth_workes=2", "no such setting. Did you mean WXAUTH_WORKERS?"),
    ("WXAUTH_AUDIENCES=hunter2", "no such setting. Did you mean WXAUTH_AUDIENCE?"),
    ("WXAUTH_APPSECRET:hunter2=", "no such setting. Did you mean WXAUTH_APP_SECRET?"),
    ("WXAUTH_XYZZY=hunter2", "no such setting"),
    ('"app_secret": "hunter2"}]', "must have the form NAME=value"),
    ("export WXAUTH_APP_SECRET = 'hunter2' # 注释", ""),
    ("# WXAUTH_APP_SECRET: hunter2", ""),
    ("OTHER=WXAUTH_APP_SECRET:hunter2", ""),
    ("OTHER_WXAUTH_PORT:1=hunter2", ""),
]
"""Lines of `.env`, and the error in each line."""


@swept(("line", "fault"), SET_NOTHING)
def test_a_line_that_sets_nothing_is_named_without_a_value(place: Path, line: str, fault: str) -> None:
    (place / ".env").write_text(f"\ufeffOTHER=thing\n\n{line}\n", encoding="utf-8")
    shown = f"{fault} (.env, line 3)" if fault.startswith("WXAUTH") else f".env, line 3: {fault}"
    assert setting_faults({}, env_file=place / ".env") == ([shown] if fault else [])


@swept(
    ("name", "fault"),
    [
        ("WXAUTH_APP_SECRET＝hunter2", f"{WITHOUT_EQUALS}, not by '＝' (the environment)"),
        ("WXAUTH_SECRET_KEY:hunter2", "WXAUTH_SECRET_KEY: must be followed by '=', not by ':' (the environment)"),
        ("WXAUTH_APP_SECREThunter2", f"{WITHOUT_EQUALS} (the environment)"),
        ("WXAUTH_APPSECREThunter2", "the environment: no such setting. Did you mean WXAUTH_APP_SECRET?"),
        ("WXAUTH_WORKERSX", "WXAUTH_WORKERSX: no such setting. Did you mean WXAUTH_WORKERS?"),
        ("WXAUTH_ACCES_TTL", "WXAUTH_ACCES_TTL: no such setting. Did you mean WXAUTH_ACCESS_TOKEN_TTL?"),
        ("WXAUTH_XYZZY", "WXAUTH_XYZZY: no such setting"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_without_a_value(name: str, fault: str) -> None:
    assert setting_faults({name: ""}, env_file=None) == [fault]


@pytest.mark.process
@pytest.mark.parametrize("language", ["C.UTF-8", "zh_CN.UTF-8"])
def test_no_command_prints_anything_of_a_line_that_sets_nothing(tmp_path: Path, language: str) -> None:
    wrong = [line for line, fault in SET_NOTHING if fault]
    url = "postgresql://wxauth:hunter4@127.0.0.1:1/wxauth"
    (tmp_path / ".env").write_text("\n".join([f"WXAUTH_DATABASE_URL={url}", *wrong]), encoding="utf-8")
    for command in ("check", "serve", "users list", "migrate", "alive", "clients list"):
        done = run(*command.split(), cwd=tmp_path, env={"LANG": language, "WXAUTH_PORT": str(free_port())})
        assert done.returncode == 1
        shown = done.stdout + done.stderr
        assert "hunter" not in shown
        assert "Traceback" not in shown
        named = {int(number) for number in re.findall(r"\.env(?:, line|，第) (\d+)", shown)}
        assert named == (set(range(2, len(wrong) + 2)) if command in ("check", "serve") else set())


def test_variables_of_kubernetes_for_a_service_named_wxauth_are_no_mistake(load: Load) -> None:
    links = {
        "WXAUTH_SERVICE_HOST": "10.0.0.7",
        "WXAUTH_SERVICE_PORT": "8000",
        "WXAUTH_SERVICE_PORT_HTTP": "8000",
        "WXAUTH_PORT": "tcp://10.0.0.7:8000",
        "WXAUTH_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "WXAUTH_PORT_8000_TCP_ADDR": "10.0.0.7",
        "WXAUTH_POSTGRESQL_SERVICE_HOST": "10.0.0.8",
        "WXAUTH_POSTGRESQL_PORT": "tcp://10.0.0.8:5432",
        "WXAUTH_POSTGRESQL_PORT_5432_TCP_PROTO": "tcp",
    }
    assert setting_faults(links, env_file=None) == []
    assert load(**REQUIRED, PORT=links["WXAUTH_PORT"]).port == 8000


def test_settings_can_be_printed_without_their_secrets(load: Load) -> None:
    shown = repr(load(**REQUIRED, REDIS_URL="redis://:hunter2@redis"))
    for secret in (SECRET_KEY, APP["app_secret"], "hunter2"):
        assert secret not in shown


def test_the_push_pair_is_optional(load: Load) -> None:
    pairs = [("", ""), ("A1b", ""), ("a" * 32, "9aZ" * 14 + "9")]
    apps = [
        {"app_id": f"wx{n}", "app_secret": "x", "push_token": pair[0], "push_aes_key": pair[1]}
        for n, pair in enumerate(pairs)
    ]
    loaded = load(**REQUIRED | {"APPS": json.dumps(apps)}).apps
    assert [(app.push_token is not None, app.push_aes_key is not None) for app in loaded] == [
        (bool(token), bool(key)) for token, key in pairs
    ]


@pytest.mark.parametrize("rest", ["", "/keys", "?token=hunter2", "#hunter2"])
def test_the_host_of_a_url_contains_nothing_after_the_host(rest: str) -> None:
    assert host_of(f"https://app.example.com:8443{rest}") == "app.example.com:8443"
