"""Settings: `WXAUTH_*` in the environment, in `.env`, or as files; a wrong one is named and never shown."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import APP, OTHER_APP, SECRET_KEY
from tests.processes import environment, run
from tests.sweeps import swept
from wxauth.server.core.settings import DatabaseSettings, InvalidSettings, Settings, load_settings, unknown_names

DATABASE_URL = "postgresql://wxauth:hunter2@db.internal/wxauth"
REQUIRED = {"DATABASE_URL": DATABASE_URL, "SECRET_KEY": SECRET_KEY, "APPS": json.dumps([APP])}

DEFAULTS = {
    "ISSUER": "http://127.0.0.1:8000",
    "AUDIENCE": "wxauth",
    "ACCESS_TOKEN_TTL": 900,
    "REFRESH_TOKEN_TTL": 2592000,
    "SESSION_MAX_AGE": 31536000,
    "REFRESH_REUSE_GRACE": 60,
    "SIGNING_KEY_MAX_AGE": 7776000,
    "SECRET_KEY_PREVIOUS": (),
    "WECHAT_BASE_URL": "https://api.weixin.qq.com",
    "WECHAT_FALLBACK_URL": "https://api2.weixin.qq.com",
    "WECHAT_OPEN_URL": "https://open.weixin.qq.com",
    "WECHAT_TIMEOUT": 5,
    "WECHAT_PROXY": None,
    "PHONE_POLICY": "move",
    "LINK_PHONE_DAYS": 60,
    "PHONE_CHECK_OPENID": True,
    "PHONE_REGION": "CN",
    "RISK_POLICY": "off",
    "NICKNAME_CHECK": "off",
    "AVATAR_CHECK": "off",
    "SIGN_UP": "open",
    "SIGN_UP_ROLES": (),
    "SSO_TTL": 28800,
    "SCAN_LINK": "off",
    "CLAIMS": {},
    "SIGN_UP_HOOK_URL": None,
    "SIGN_UP_HOOK_SECRET": None,
    "SIGN_UP_HOOK_TIMEOUT": 2.0,
    "SIGN_UP_HOOK_FAILURE": "refuse",
    "CONSENTS": {},
    "EVENTS_KEPT_DAYS": 0,
    "ADDRESSES_KEPT_DAYS": 0,
    "ERASURE_GRACE_DAYS": 0,
    "ENDED_SESSIONS_KEPT_DAYS": 30,
    "SCAN_PAGE": "pages/scan/scan",
    "SITE_PAGE": "pages/authorize/authorize",
    "SCAN_ENV": "release",
    "SCAN_CODE": "wxacode",
    "SCAN_ENTRY": "camera",
    "SCAN_RATE_LIMIT": "60/minute",
    "SCAN_CLIENT_LIMIT": "600/minute",
    "CLIENT_RATE_LIMIT": "",
    "SCAN_PICTURE_LIMIT": "3000/minute",
    "SCAN_ADMIN_ANYWHERE": False,
    "WEB_SESSION_TTL": 43200,
    "WEB_SESSION_MAX_AGE": 2592000,
    "LINK_CHECK_FILE": None,
    "CHECK_FILES": (),
    "REDIS_URL": None,
    "LOGIN_RATE_LIMIT": "600/minute",
    "RATE_LIMIT_EXEMPT": (),
    "TRUSTED_PROXIES": ("127.0.0.1",),
    "CORS_ORIGINS": (),
    "OTLP_URL": None,
    "SECRETS_DIR": Path("/run/secrets"),
    "ADMIN_PAGE": False,
    "ADMIN_FRESH_LOGIN": 3600,
    "STAFF_READS": True,
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "json",
    "LOG_ADDRESSES": False,
    "LOG_SAMPLE": 1,
    "HOST": "127.0.0.1",
    "PORT": 8000,
    "WORKERS": 1,
    "SECURITY_CONTACT": None,
}

WRONG = [
    ("DATABASE_URL", "mysql://wxauth:hunter2@db/wxauth"),
    ("DATABASE_URL", "hunter2"),
    ("DATABASE_URL", ""),
    ("DATABASE_URL", "postgresql://wxauth:hunter2@db:port/wxauth"),
    ("DATABASE_URL", "postgresql://wxauth:hunter2@db:99999/wxauth"),
    ("DATABASE_URL", "postgresql://wxauth:hunter2@/wxauth?host=a&port=abc"),
    ("DATABASE_URL", "postgresql://wxauth:hunter2@/wxauth?host=a,b,c&port=1,2"),
    ("DATABASE_URL", "postgresql://wxauth:hunter2#@db/wxauth"),
    ("DATABASE_URL", "postgresql://wxauth:hunter2/x@db/wxauth"),
    ("APP_ID", "wx 1"),
    ("APPS", "hunter2"),
    ("APPS", '{"wx1": "hunter2"}'),
    ("APPS", '[{"app_id": "wx1"}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": ""}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2", "hunter3": 1}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2"}, {"app_id": "wx1", "app_secret": "hunter3"}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "hunter2 hunter3"}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "h2"}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "hunter2hunter2hunter2hunter2hunter2"}]'),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2", "push_token": "hunter2", "push_aes_key": "hunter2"}]'),
    ("APPS", f'[{{"app_id": "wx1", "app_secret": "hunter2", "push_aes_key": "{"hunter2" * 6}h"}}]'),
    ("SIGN_UP", "hunter2"),
    ("LINK_PHONE_DAYS", "0"),
    ("APPS", '[{"app_id": "wx1", "app_secret": "hunter2", "sign_up": "hunter3"}]'),
    ("CONSENTS", "hunter2"),
    ("CONSENTS", "hunter2:"),
    ("CONSENTS", "Hunter2:1"),
    ("CONSENTS", "privacy:1,privacy:2"),
    ("EVENTS_KEPT_DAYS", "179"),
    ("EVENTS_KEPT_DAYS", "-181"),
    ("ADDRESSES_KEPT_DAYS", "-1"),
    ("SECRET_KEY", ""),
    ("SECRET_KEY", "hunter2"),
    ("SECRET_KEY", "密钥"),
    ("SECRET_KEY", SECRET_KEY[:-4]),
    ("SECRET_KEY_PREVIOUS", f"{SECRET_KEY},hunter2"),
    ("ISSUER", "auth.example.com"),
    ("ISSUER", "http://auth.example.com"),
    ("ISSUER", "https://auth.example.com/"),
    ("ISSUER", "https://auth.example.com?tenant=1"),
    ("ISSUER", "https://user:hunter2@auth.example.com"),
    ("ISSUER", "https://auth.example.com:port"),
    ("ISSUER", "https://[hunter2]"),
    ("ISSUER", " https://auth.example.com"),
    ("ISSUER", "https://auth.example.com/a%20b"),
    ("ISSUER", "https://auth.example.com/v1"),
    ("AUDIENCE", ""),
    ("ACCESS_TOKEN_TTL", "0"),
    ("ACCESS_TOKEN_TTL", "86401"),
    ("ACCESS_TOKEN_TTL", "15min"),
    ("REFRESH_TOKEN_TTL", "-1"),
    ("SCAN_PAGE", "/pages/scan/scan"),
    ("SCAN_PAGE", "pages/scan/scan?a=1"),
    ("SCAN_PAGE", ""),
    ("SITE_PAGE", "/pages/authorize/authorize"),
    ("SIGN_UP_ROLES", "member,admin"),
    ("SSO_TTL", "-1"),
    ("SCAN_LINK", "on"),
    ("CLAIMS", "[]"),
    ("SIGN_UP_HOOK_URL", "ftp://x"),
    ("SIGN_UP_HOOK_URL", "http://8.8.8.8/"),
    ("SIGN_UP_HOOK_URL", "https://169.254.169.254/"),
    ("SIGN_UP_HOOK_URL", "https://169.254.169.254./"),
    ("SIGN_UP_HOOK_URL", "http://2852039166/"),
    ("SIGN_UP_HOOK_URL", "https://[::ffff:a9fe:a9fe]/"),
    ("SIGN_UP_HOOK_SECRET", "whsec_short"),
    ("SIGN_UP_HOOK_TIMEOUT", "0"),
    ("SIGN_UP_HOOK_FAILURE", "maybe"),
    ("PHONE_REGION", "China"),
    ("PHONE_REGION", ""),
    ("ERASURE_GRACE_DAYS", "16"),
    ("ERASURE_GRACE_DAYS", "-1"),
    ("ENDED_SESSIONS_KEPT_DAYS", "0"),
    ("ENDED_SESSIONS_KEPT_DAYS", "a month"),
    ("SCAN_ENV", "production"),
    ("SCAN_CODE", "qr"),
    ("SCAN_ENTRY", "album"),
    ("SCAN_RATE_LIMIT", "many"),
    ("SCAN_CLIENT_LIMIT", "0/second"),
    ("CLIENT_RATE_LIMIT", "100"),
    ("SCAN_PICTURE_LIMIT", "5000"),
    ("SCAN_ADMIN_ANYWHERE", "perhaps"),
    ("WEB_SESSION_TTL", "0"),
    ("WEB_SESSION_MAX_AGE", "a month"),
    ("CHECK_FILES", "nothing"),
    ("CHECK_FILES", "docs:hunter2"),
    ("CHECK_FILES", "v1/me:hunter2"),
    ("CHECK_FILES", "a.txt:hunter2,a.txt:hunter3"),
    ("SECURITY_CONTACT", "hunter2@example.com"),
    ("SECURITY_CONTACT", "mailto:a@b\nPolicy: hunter2"),
    ("LINK_CHECK_FILE", "nothing"),
    ("LINK_CHECK_FILE", "../name.txt:content"),
    ("LINK_CHECK_FILE", "name.txt:"),
    ("REFRESH_TOKEN_TTL", "9" * 12),
    ("SESSION_MAX_AGE", "0"),
    ("REFRESH_REUSE_GRACE", "-1"),
    ("SIGNING_KEY_MAX_AGE", "59"),
    ("WECHAT_BASE_URL", "http://api.weixin.qq.com"),
    ("WECHAT_BASE_URL", "api.weixin.qq.com"),
    ("WECHAT_FALLBACK_URL", "ftp://api2.weixin.qq.com"),
    ("WECHAT_OPEN_URL", "http://open.weixin.qq.com"),
    ("WECHAT_TIMEOUT", "0"),
    ("WECHAT_TIMEOUT", "5s"),
    ("WECHAT_TIMEOUT", "nan"),
    ("WECHAT_PROXY", "proxy.internal:3128"),
    ("WECHAT_PROXY", "http://proxy.internal"),
    ("WECHAT_PROXY", "https://wxauth:hunter2@proxy.internal:3128"),
    ("WECHAT_PROXY", "socks5://wxauth:hunter2@proxy.internal:1080"),
    ("WECHAT_PROXY", "http://wxauth:hunter2@proxy.internal:port"),
    ("WECHAT_PROXY", "http://wxauth:hunter2@proxy.internal:99999"),
    ("WECHAT_PROXY", "http://wxauth:hunter2@x@proxy.internal:3128"),
    ("WECHAT_PROXY", "http://wxauth:hunter2/x@proxy.internal:3128"),
    ("WECHAT_PROXY", "http://:hunter2@proxy.internal:3128"),
    ("WECHAT_PROXY", "http://proxy.internal:3128/hunter2"),
    ("PHONE_POLICY", "permit"),
    ("PHONE_POLICY", ""),
    ("RISK_POLICY", "on"),
    ("NICKNAME_CHECK", "true"),
    ("AVATAR_CHECK", "on"),
    ("PHONE_CHECK_OPENID", "maybe"),
    ("REDIS_URL", "http://:hunter2@redis"),
    ("REDIS_URL", "redis://:hunter2@redis:port"),
    ("REDIS_URL", "redis://:hunter2@redis-1:6379,redis-2:6379"),
    ("REDIS_URL", "redis+sentinel://:hunter2@sentinel-1,sentinel-2"),
    ("REDIS_URL", "redis+cluster://:hunter2@redis-1,redis-2/0"),
    ("LOGIN_RATE_LIMIT", "600 per minute"),
    ("LOGIN_RATE_LIMIT", "many/minute"),
    ("RATE_LIMIT_EXEMPT", "office.example"),
    ("RATE_LIMIT_EXEMPT", "*"),
    ("RATE_LIMIT_EXEMPT", "0.0.0.0/0"),
    ("TRUSTED_PROXIES", "proxy.internal"),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("TRUSTED_PROXIES", "*,10.0.0.0/8"),
    ("TRUSTED_PROXIES", "0.0.0.0/0"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,::/0"),
    ("CORS_ORIGINS", "admin.example.com"),
    ("CORS_ORIGINS", "https://admin.example.com/page"),
    ("OTLP_URL", "https://hunter2@collector:4318"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("LOG_ADDRESSES", "sometimes"),
    ("LOG_SAMPLE", "0"),
    ("STAFF_READS", "sometimes"),
    ("HOST", ""),
    ("ADMIN_PAGE", "perhaps"),
    ("ADMIN_FRESH_LOGIN", "-1"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("SECRETS_DIR", "/nothing/hunter2"),
    ("WORKERS", "0"),
    ("WORKERS", "many"),
]

Load = Callable[..., Settings]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for `.env`, with one for files beside."""
    (tmp_path / "secrets").mkdir()
    return tmp_path


@pytest.fixture
def load(place: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the settings with nothing in the environment but these."""
    for name in os.environ:
        if name.upper().startswith("WXAUTH_"):
            monkeypatch.delenv(name)

    def load_from(kind: type[Any] = Settings, **values: str) -> Any:
        with monkeypatch.context() as environment:
            for name, value in values.items():
                environment.setenv(f"WXAUTH_{name}", value)
            return load_settings(kind, env_file=place / ".env", secrets_dir=place / "secrets")

    return load_from


def test_the_table_of_the_contract_is_complete() -> None:
    names = {*DEFAULTS, *REQUIRED, "APP_ID", "APP_SECRET"}
    assert {name.upper() for name in Settings.model_fields} == names
    assert names - {name for name, _ in WRONG} == {"APP_SECRET"}


def test_a_setting_that_is_not_set_has_its_default(load: Load) -> None:
    settings = load(**REQUIRED)
    assert {name: getattr(settings, name.lower()) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", ["APP_ID", "APPS"])
def test_an_invalid_appid_is_refused_with_an_example(load: Load, name: str) -> None:
    given = {"APP_ID": "wx…", "APP_SECRET": "x", "APPS": ""}
    if name == "APPS":
        given = {"APPS": '[{"app_id": "wx…", "app_secret": "x"}]'}
    with pytest.raises(InvalidSettings, match=rf"WXAUTH_{name}.*: must be an AppID, such as wx0123456789abcdef"):
        load(**REQUIRED | given)


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


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEY"])
def test_a_required_setting_is_asked_for(load: Load, name: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(**{other: value for other, value in REQUIRED.items() if other != name})
    assert refused.value.problems == [f"WXAUTH_{name}: is required"]


@pytest.mark.process
def test_serve_names_all_wrong_settings_at_once_without_their_values(tmp_path: Path) -> None:
    wrong = {name: value for name, value in WRONG if name != "APP_ID" and len(value) > 4}
    stopped = run("serve", cwd=tmp_path, env={f"WXAUTH_{name}": value for name, value in wrong.items()})
    assert stopped.returncode == 1
    assert stopped.stdout == ""
    lines = stopped.stderr.splitlines()
    assert len(lines) == len(wrong)
    for name, value in wrong.items():
        assert any(line.startswith(f"WXAUTH_{name}") for line in lines)
        assert value not in stopped.stderr


@pytest.mark.process
def test_serve_without_any_setting_names_the_required_ones(tmp_path: Path) -> None:
    stopped = run("serve", cwd=tmp_path)
    assert stopped.returncode == 1
    for name in ("WXAUTH_DATABASE_URL", "WXAUTH_SECRET_KEY"):
        assert name in stopped.stderr
    assert "Traceback" not in stopped.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://wxauth:hunter2@db:5432/wxauth",
        "postgres://db/wxauth",
        "postgresql+asyncpg://db/wxauth",
        "postgresql://wxauth@one:5432,two:5433/wxauth?target_session_attrs=any",
        "postgresql:///wxauth?host=/var/run/postgresql",
        "postgresql://wxauth:p%40ss%2Fword@[::1]:5432/wxauth?sslmode=require",
    ],
)
def test_a_database_may_be_named_in_many_ways(load: Load, url: str) -> None:
    loaded = load(**REQUIRED | {"DATABASE_URL": url}).database_url.get_secret_value()
    assert loaded.startswith("postgresql://")
    assert loaded.partition("://")[2] == url.partition("://")[2]


def test_migrate_needs_only_the_database(load: Load) -> None:
    assert load(DatabaseSettings, DATABASE_URL=DATABASE_URL).database_url.get_secret_value() == DATABASE_URL


@pytest.mark.parametrize(
    "issuer",
    ["https://auth.example.com", "https://example.com:8443/auth", "http://localhost:8000", "http://[::1]/auth"],
)
def test_an_issuer_is_https_or_loopback(load: Load, issuer: str) -> None:
    assert load(**REQUIRED, ISSUER=issuer).issuer == issuer


@pytest.mark.parametrize(
    ("given", "fallback"),
    [
        ({"WECHAT_BASE_URL": "https://api.weixin.qq.com"}, "https://api2.weixin.qq.com"),
        ({"WECHAT_BASE_URL": "https://wechat-proxy.internal"}, None),
        ({"WECHAT_BASE_URL": "http://127.0.0.1:8001"}, None),
        ({"WECHAT_FALLBACK_URL": ""}, None),
        ({"WECHAT_FALLBACK_URL": "https://sh.api.weixin.qq.com"}, "https://sh.api.weixin.qq.com"),
    ],
)
def test_the_fallback_host_is_used_only_with_the_default_host(
    load: Load, given: dict[str, str], fallback: str | None
) -> None:
    assert load(**REQUIRED, **given).wechat_fallback_url == fallback


def test_a_single_app_is_configured_without_a_list(load: Load) -> None:
    settings = load(**REQUIRED | {"APPS": "", "APP_ID": APP["app_id"], "APP_SECRET": APP["app_secret"]})
    assert settings.apps[0].app_id == APP["app_id"]
    assert settings.apps[0].app_secret.get_secret_value() == APP["app_secret"]


def test_apps_stay_in_their_order(load: Load) -> None:
    settings = load(**REQUIRED | {"APPS": json.dumps([OTHER_APP, APP])})
    assert [app.app_id for app in settings.apps] == [OTHER_APP["app_id"], APP["app_id"]]


def test_no_app_need_be_named_for_they_may_be_added_at_run_time(load: Load) -> None:
    assert load(**REQUIRED | {"APPS": ""}).apps == ()


def test_an_app_may_have_its_own_sign_up_policy(load: Load) -> None:
    apps = [APP, OTHER_APP | {"sign_up": "closed"}]
    assert [app.sign_up for app in load(**REQUIRED | {"APPS": json.dumps(apps)}).apps] == [None, "closed"]
    with pytest.raises(InvalidSettings, match="WXAUTH_APPS"):
        load(**REQUIRED | {"APPS": json.dumps([APP | {"sign_up": "perhaps"}])})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"APPS": "", "APP_ID": "wx1"}, "WXAUTH_APP_SECRET"),
        ({"APPS": "", "APP_SECRET": "hunter2"}, "WXAUTH_APP_ID"),
        ({"APP_ID": "wx1", "APP_SECRET": "hunter2"}, "WXAUTH_APPS"),
    ],
)
def test_apps_are_named_in_one_way_and_whole(load: Load, given: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(**REQUIRED | given)
    (problem,) = refused.value.problems
    assert named in problem
    assert "hunter2" not in problem


def test_lists_have_commas_between(load: Load) -> None:
    settings = load(
        **REQUIRED,
        SECRET_KEY_PREVIOUS=f"{SECRET_KEY}, {SECRET_KEY}",
        TRUSTED_PROXIES="10.1.2.3/8, ::1",
        CORS_ORIGINS="https://admin.example.com,http://localhost:5173",
    )
    assert len(settings.secret_keys) == 3
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.cors_origins == ("https://admin.example.com", "http://localhost:5173")


def test_empty_is_none_where_there_may_be_none(load: Load) -> None:
    settings = load(**REQUIRED, LOGIN_RATE_LIMIT="", TRUSTED_PROXIES="", CORS_ORIGINS="", REDIS_URL="", APP_ID="")
    assert (settings.login_rate_limit, settings.trusted_proxies, settings.redis_url) == ("", (), None)


@pytest.mark.parametrize("form", ["json", "console", "JSON"])
def test_the_form_of_the_log_can_be_chosen(load: Load, form: str) -> None:
    assert load(**REQUIRED, LOG_FORMAT=form).log_format == form.lower()


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_on_a_terminal_the_log_is_for_people() -> None:
    terminal, end = os.openpty()
    program = (
        "from wxauth.server.core.settings import *; os.write(2, load_settings(DatabaseSettings).log_format.encode())"
    )
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


def test_a_setting_may_be_a_file(load: Load, place: Path) -> None:
    (place / "secrets" / "wxauth_secret_key").write_text(SECRET_KEY + "\n")
    (place / "secrets" / "WXAUTH_APPS").write_text(json.dumps([APP]))
    (place / "secrets" / "other").write_text("thing")
    settings = load(DATABASE_URL=DATABASE_URL)
    assert settings.secret_key.get_secret_value() == SECRET_KEY
    assert settings.apps[0].app_id == APP["app_id"]


def test_a_file_may_be_a_link_out_of_the_folder(load: Load, place: Path) -> None:
    (place / "vault").mkdir()
    (place / "vault" / "key").write_text(SECRET_KEY)
    (place / "secrets" / "wxauth_secret_key").symlink_to(place / "vault" / "key")
    given = {name: value for name, value in REQUIRED.items() if name != "SECRET_KEY"}
    assert load(**given).secret_key.get_secret_value() == SECRET_KEY
    (place / "vault" / "key").unlink()
    with pytest.raises(InvalidSettings, match=r"^WXAUTH_SECRET_KEY: must be a readable file of UTF-8 text$"):
        load(**given)


def test_files_may_be_links_that_are_exchanged_together(load: Load, place: Path) -> None:
    """As Kubernetes does it: `..data` leads to a folder, and each file through it."""
    secrets = place / "secrets"
    (secrets / "wxauth_audience").symlink_to("..data/wxauth_audience")
    for version in ("one", "two"):
        (secrets / f"..{version}").mkdir()
        (secrets / f"..{version}" / "wxauth_audience").write_text(version)
        (secrets / "..next").symlink_to(f"..{version}")
        (secrets / "..next").rename(secrets / "..data")
        assert load(**REQUIRED).audience == version


def test_the_environment_comes_before_the_env_file_and_that_before_files(load: Load, place: Path) -> None:
    (place / "secrets" / "wxauth_audience").write_text("file")
    assert load(**REQUIRED).audience == "file"
    (place / ".env").write_text("WXAUTH_AUDIENCE=env-file")
    assert load(**REQUIRED).audience == "env-file"
    assert load(**REQUIRED, AUDIENCE="environment").audience == "environment"


@pytest.mark.parametrize("is_in_env_file", [True, False])
def test_the_folder_of_the_secret_files_is_configurable(
    load: Load, place: Path, tmp_path_factory: pytest.TempPathFactory, is_in_env_file: bool
) -> None:
    (place / "secrets" / "wxauth_audience").write_text("usual")
    folder = tmp_path_factory.mktemp("credentials")
    (folder / "wxauth_audience").write_text("own")
    if is_in_env_file:
        (place / ".env").write_text(f"WXAUTH_SECRETS_DIR={folder}\n")
        assert load(**REQUIRED).audience == "own"
    else:
        assert load(**REQUIRED, SECRETS_DIR=str(folder)).audience == "own"


@pytest.mark.process
def test_serve_reads_the_env_file_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WXAUTH_PORT=http\n")
    assert "WXAUTH_PORT: " in run("serve", cwd=tmp_path).stderr


@pytest.mark.parametrize("name", [".env", "secrets/wxauth_audience"])
def test_a_file_that_is_not_utf_8_is_reported(load: Load, place: Path, name: str) -> None:
    (place / name).write_bytes(b"WXAUTH_AUDIENCE=\xff\xfe")
    with pytest.raises(InvalidSettings, match="UTF-8"):
        load(**REQUIRED)


def test_a_folder_in_the_place_of_a_file_is_reported(load: Load, place: Path) -> None:
    (place / "secrets" / "wxauth_audience").mkdir()
    with pytest.raises(InvalidSettings, match=r"^WXAUTH_AUDIENCE: must be a file, and is a folder"):
        load(**REQUIRED)


def test_a_misspelt_name_is_reported_with_the_missing_setting(load: Load) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(DATABSE_URL=DATABASE_URL, SECRET_KEY=SECRET_KEY, APPS=REQUIRED["APPS"])
    assert refused.value.problems == [
        "WXAUTH_DATABASE_URL: is required",
        "WXAUTH_DATABSE_URL: no such setting, did you mean WXAUTH_DATABASE_URL?",
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("WXAUTH_ACCES_TOKEN_TTL", "WXAUTH_ACCES_TOKEN_TTL: no such setting, did you mean WXAUTH_ACCESS_TOKEN_TTL?"),
        ("wxauth_workes", "wxauth_workes: no such setting, did you mean WXAUTH_WORKERS?"),
        ("WXAUTH_XYZZY", "WXAUTH_XYZZY: no such setting"),
    ],
)
def test_a_name_that_is_no_setting_is_noticed(name: str, line: str, place: Path) -> None:
    assert unknown_names({name: "hunter2"}, env_file=None) == [line]
    (place / ".env").write_text(f"{name}=hunter2\n")
    assert unknown_names({}, env_file=place / ".env") == [line]


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
    assert unknown_names(links, env_file=None) == []
    assert load(**REQUIRED, PORT=links["WXAUTH_PORT"]).port == 8000


def test_lines_that_are_the_record_of_logins_are_not_sampled(load: Load) -> None:
    assert load(**REQUIRED, LOG_SAMPLE="100").log_sample == 100
    with pytest.raises(InvalidSettings, match=r"^WXAUTH_LOG_SAMPLE: must be 1 with WXAUTH_LOG_ADDRESSES"):
        load(**REQUIRED, LOG_SAMPLE="100", LOG_ADDRESSES="true")


def test_settings_can_be_printed_without_their_secrets(load: Load) -> None:
    shown = repr(load(**REQUIRED, REDIS_URL="redis://:hunter2@redis"))
    for secret in (SECRET_KEY, APP["app_secret"], "hunter2"):
        assert secret not in shown


def test_the_push_pair_is_optional(load: Load) -> None:
    app = {"app_id": "wx1", "app_secret": "hunter2"}
    pairs = [
        {},
        {"push_token": "", "push_aes_key": ""},
        {"push_token": "A1b"},
        {"push_token": "a" * 32, "push_aes_key": "9aZ" * 14 + "9"},
    ]
    apps = [{**app, "app_id": f"wx{n}", **pair} for n, pair in enumerate(pairs)]
    loaded = load(**REQUIRED | {"APPS": json.dumps(apps)}).apps
    assert [(app.push_token is not None, app.push_aes_key is not None) for app in loaded] == [
        (False, False),
        (False, False),
        (True, False),
        (True, True),
    ]
