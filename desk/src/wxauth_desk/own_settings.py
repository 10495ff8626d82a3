"""The settings of the service that `wxauth-desk dev` runs."""

import asyncio
import base64
import os
import re
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import click

from wxauth.checks.result import CheckResult
from wxauth.checks.runner import check_apps_with_wechat
from wxauth.core.logs import configure_logging
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth.wechat.errcodes import WRONG_SECRET_REMEDY
from wxauth_desk.i18n import lazy_gettext as _
from wxauth_desk.private_files import store_privately
from wxauth_desk.signals import handled_by, raise_exit
from wxauth_desk.terminal import TextError, localized, os_reason
from wxauth_desk.wechat import ACCOUNT, APP_TITLES, APPS, WEBSITE

# If one of them is set, `wxauth-desk dev` uses the real WeChat.
REAL_APP_NAMES: Final = frozenset({"WXAUTH_APP_ID", "WXAUTH_APP_SECRET", "WXAUTH_APPS"})
HOME: Final = Path(".wxauth")


@dataclass(frozen=True, slots=True)
class AppSecret:
    """The AppSecret of `WXAUTH_APP_ID`, which a file stores from one run to the next."""

    path: Path
    value: str = field(repr=False)
    is_from_prompt: bool

    @classmethod
    def find(cls, home: Path, variables: Mapping[str, str]) -> Self | None:
        """Read the AppSecret from the file of an earlier run in `home`, or prompt for it on a terminal.

        Return None if there is neither, or if the environment does not contain an app's id alone.
        """
        app_id = variables.get("WXAUTH_APP_ID", "")
        has_only_id = (variables.keys() & REAL_APP_NAMES) == {"WXAUTH_APP_ID"}
        can_name_file = re.fullmatch(r"[\w-]{1,64}", app_id, re.ASCII) is not None
        if not (has_only_id and can_name_file):
            return None
        path = home / f"app_secret_{app_id}"
        if path.exists():
            return cls(path, path.read_text("utf-8"), is_from_prompt=False)
        if not sys.stdin.isatty():
            return None
        with handled_by(raise_exit):  # so that the terminal echoes again after an interrupted prompt
            question = localized(_("AppSecret of {app_id} (not shown)", app_id=app_id))
            return cls(path, click.prompt(question, hide_input=True, err=True).strip(), is_from_prompt=True)

    def store_unless_refused(self, findings: Iterable[CheckResult]) -> None:
        """Store a new secret for the next run, or delete the stored one if the findings say that WeChat refuses it."""
        # A result has no field for WeChat's errcode, and several errcodes mean a refused secret, so it is recognized by
        # their common remedy, which the check puts into its text.
        if any(WRONG_SECRET_REMEDY in finding.text for finding in findings):
            self.path.unlink(missing_ok=True)
            text = _("The AppSecret is not stored. You will need to enter it again at the next start.")
            click.echo(localized(text), err=True)
        elif self.is_from_prompt:
            store_privately(self.path, self.value)
            text = _("The AppSecret is stored in {path}, which only you can read.", path=self.path)
            click.echo(localized(text), err=True)


class OwnSettings(NamedTuple):
    """The service's settings, the values that `dev` has set in them, and the results of the checks with WeChat."""

    settings: Settings
    findings: list[CheckResult]  # of the real WeChat; empty with the simulated one
    set_by_dev: dict[str, Any]  # by the name of the setting


def load_settings(simulated_url: str | None, port: int | None, *, push_forward: str) -> OwnSettings:
    """Read the settings, and create `HOME` and the secrets in it. `port` is the one that the caller has chosen, if any.

    Without a simulated WeChat, also check the apps with the real one. This might prompt for the AppSecret, and silences
    the log below `critical`, so the caller must configure the log afterwards.

    Raises: TextError, if a file in `HOME` cannot be read or written; InvalidSettings.
    """
    try:
        HOME.mkdir(exist_ok=True)
        (HOME / ".gitignore").write_text("*\n", "utf-8")  # the folder contains secrets
        secret = AppSecret.find(HOME, environment())
        app_secret = None if secret is None else secret.value
        set_by_dev = _values_set_by_dev(simulated_url, port, app_secret=app_secret, push_forward=push_forward)
        settings = settings_from(Settings, **set_by_dev)  # does not read `.env`
        if "WXAUTH_ISSUER" not in environment():  # the default contains port 8000
            settings = settings.model_copy(update={"issuer": f"http://127.0.0.1:{settings.port}"})
        findings: list[CheckResult] = []
        if simulated_url is None:
            # The findings report everything that the log would contain.
            configure_logging(level="critical", log_format=settings.log_format)
            findings = asyncio.run(check_apps_with_wechat(settings))
        if secret is not None:
            secret.store_unless_refused(findings)
    except OSError as exc:
        raise TextError(_("{name}: {rule}", name=exc.filename or HOME, rule=os_reason(exc))) from None
    return OwnSettings(settings, findings, set_by_dev)


def environment() -> dict[str, str]:
    """Return the variables of the environment that aren't empty, with their names in upper case.

    The settings accept names in upper and in lower case.
    """
    return {name.upper(): value for name, value in os.environ.items() if value}


def port_of_environment() -> int | None:
    """Return `WXAUTH_PORT`; None if it is not set, or is not a number. The settings report a wrong value later."""
    text = environment().get("WXAUTH_PORT", "")
    return int(text) if re.fullmatch("[1-9][0-9]{0,4}", text) else None


def _values_set_by_dev(
    simulated_url: str | None, port: int | None, *, app_secret: str | None, push_forward: str
) -> dict[str, Any]:
    variables = environment()
    defaults = {
        "database_url": "postgresql://",  # a placeholder until the embedded PostgreSQL has started
        "secret_key": _secret_key(),
        "app_secret": app_secret,
        "log_level": "warning",
        "admin_page": True,
    }
    fixed: dict[str, Any] = {} if port is None else {"port": port}
    if simulated_url is not None:
        defaults["scan_link"] = "scheme"  # a scheme needs no request to WeChat
        # These are the documents that the guides use as examples. On the simulated phone, the user can agree to them.
        defaults["consents"] = "privacy:2026-05,terms:3"
        apps = [{**app, "title": localized(APP_TITLES[app["app_id"]])} for app in (*APPS, ACCOUNT, WEBSITE)]
        apps[0]["push_forward"] = push_forward  # the first app is the shop's
        fixed |= {
            "apps": apps,
            "app_id": None,
            "app_secret": None,
            "wechat_base_url": simulated_url,
            "wechat_open_url": simulated_url,
            "wechat_fallback_url": None,
            "wechat_proxy": None,
        }
    # The environment takes precedence over the defaults.
    overridable = {name: value for name, value in defaults.items() if f"WXAUTH_{name.upper()}" not in variables}
    return overridable | fixed


def _secret_key() -> str:
    path = HOME / "secret_key"  # next to the data that the key encrypts
    if not path.exists():
        store_privately(path, base64.b64encode(secrets.token_bytes(32)).decode())
    return path.read_text("utf-8").strip()  # a developer's own file might end with a newline
