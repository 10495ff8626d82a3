"""Write the questions of panels' forms, and the version, into `deploy/1panel` and `deploy/sealos`.

The rest of these files is unchanged, because only the nodes that this list makes are replaced.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from wxauth import __version__
from wxauth.settings.settings import PREFIX

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = f"ghcr.io/wxauth/wxauth:{__version__}"
PANEL: Final = ROOT / "deploy/1panel"
SEALOS: Final = ROOT / "deploy/sealos/index.yaml"
_MADE: Final = "# Written by scripts/panels. 由 scripts/panels 生成。\n"


class Label(NamedTuple):
    """A text in both languages."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A setting that a form asks for, with its label."""

    name: str
    label: Label
    is_required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()

    @property
    def is_secret(self) -> bool:
        """Whether the form hides what is typed."""
        return self.name in ("SECRET_KEY", "APP_SECRET")


ASKED: Final = (
    Asked(name="ISSUER", label=Label("Public URL (https)", "对外网址（https）"), is_required=True),
    Asked(
        name="SECRET_KEY",
        label=Label("Secret key (run: openssl rand -base64 32)", "密钥（运行 openssl rand -base64 32 生成）"),
        is_required=True,
    ),
    Asked(name="APP_ID", label=Label("AppID of the mini-program", "小程序 AppID"), is_required=True),
    Asked(name="APP_SECRET", label=Label("AppSecret", "小程序密钥 AppSecret"), is_required=True),
    Asked(name="TRUSTED_PROXIES", label=Label("Network of the reverse proxy", "反向代理网段"), default="172.16.0.0/12"),
    Asked(name="ADMIN_PAGE", label=Label("Admin console", "管理后台"), default="true", choices=("true", "false")),
    Asked(name="SIGN_UP", label=Label("Sign-up", "注册"), default="open", choices=("open", "closed")),
    Asked(
        name="PHONE_POLICY",
        label=Label("If a phone number belongs to another user", "手机号已属他人时"),
        default="move",
        choices=("move", "refuse", "share", "link"),
    ),
    Asked(
        name="CONSENTS",
        label=Label("Required consents, for example privacy:2026-05", "需要用户同意的协议，例如 privacy:2026-05"),
    ),
    Asked(
        name="EVENTS_KEPT_DAYS",
        label=Label("Days to keep the audit trail (0 keeps it forever)", "审计记录保留天数（0 为永久保留）"),
        default="0",
    ),
    Asked(
        name="ENDED_SESSIONS_KEPT_DAYS", label=Label("Days to keep ended sessions", "已结束会话保留天数"), default="180"
    ),
)


_GIVEN_BY_SEALOS: Final = {
    "ISSUER": "https://${{ defaults.app_host }}.${{ SEALOS_CLOUD_DOMAIN }}",
    "SECRET_KEY": "${{ base64(defaults.secret) }}",  # 32 letters and digits, with 165 random bits
    "TRUSTED_PROXIES": "10.0.0.0/8",
}


def files() -> dict[Path, str]:
    """Return the text of each file."""
    [folder] = [path.parent for path in PANEL.glob("*/docker-compose.yml")]
    form, compose = (yaml.safe_load((folder / name).read_text("utf-8")) for name in ("data.yml", "docker-compose.yml"))
    sealos = list(yaml.safe_load_all(SEALOS.read_text("utf-8")))
    fields = form["additionalProperties"]["formFields"]
    names = {it.name for it in ASKED}
    fields[:] = [field for field in fields if field["envKey"] not in names] + [_panel_field(it) for it in ASKED]
    services = compose["services"]
    database = services["migrate"]["environment"]
    services["wxauth"]["environment"] = database | {PREFIX + it.name: f"${{{it.name}}}" for it in ASKED}
    for service in services.values():
        service["image"] = IMAGE
    for part in sealos:
        if part["kind"] == "Template":
            part["spec"]["inputs"] = {it.name: _sealos_input(it) for it in ASKED if it.name not in _GIVEN_BY_SEALOS}
        elif part["kind"] == "Secret":
            asked = {it.name: f"${{{{ inputs.{it.name} }}}}" for it in ASKED}
            part["stringData"] = {PREFIX + name: value for name, value in (asked | _GIVEN_BY_SEALOS).items()}
        elif part["kind"] == "Deployment":
            part["metadata"]["annotations"]["originImageName"] = IMAGE
            pod = part["spec"]["template"]["spec"]
            for container in (*pod["initContainers"], *pod["containers"]):
                container["image"] = IMAGE
    return {
        folder / "data.yml": _MADE + _dump(form),
        folder / "docker-compose.yml": _MADE + _dump(compose),
        SEALOS: _MADE + "---\n".join(map(_dump, sealos)),
    }


class _Plain(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """A dumper without anchors, which a form's reader would have to resolve."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted_if_replaced(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Represent a text, in quotation marks if it has a variable.

    A panel inserts the value before YAML is read, and 180 must stay a text.
    """
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "${" in text else None)


_Plain.add_representer(str, _quoted_if_replaced)


def _dump(value: object) -> str:
    text: str = yaml.dump(value, Dumper=_Plain, allow_unicode=True, sort_keys=False, width=1000)
    return text


def _panel_field(it: Asked) -> dict[str, Any]:
    choices = {"values": [{"label": value, "value": value} for value in it.choices]} if it.choices else {}
    return {
        "envKey": it.name,
        "labelZh": it.label.zh,
        "labelEn": it.label.en,
        "label": {"en": it.label.en, "zh": it.label.zh},
        "required": it.is_required,
        "type": "password" if it.is_secret else "select" if it.choices else "text",
        "default": it.default,
        "edit": True,
        **choices,
    }


def _sealos_input(it: Asked) -> dict[str, Any]:
    return {
        "description": f"{it.label.en} {it.label.zh}",
        "type": "choice" if it.choices else "string",
        "default": it.default,
        "required": it.is_required,
        **({"options": list(it.choices)} if it.choices else {}),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, "utf-8")
