"""Write the fields of the forms, and the version of the image, into the files for the panels 1Panel and Sealos.

The files are in `deploy/1panel` and `deploy/sealos`. This script parses the files and writes them again, so their
comments are lost. All other contents stay unchanged.
"""

from collections.abc import Mapping
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
_NOTICE: Final = "# Written by scripts/panels. 由 scripts/panels 生成。\n"
"""The first line of each file."""


class Label(NamedTuple):
    """A text in both languages."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A setting that the forms ask for."""

    name: str
    """The name of the setting's variable, without `WXAUTH_`."""
    label: Label
    is_required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    """The values that the operator can choose from; empty if the operator types the value."""

    @property
    def is_secret(self) -> bool:
        """Whether the setting is a secret, so that 1Panel hides the characters that the operator types."""
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


_SET_BY_SEALOS: Final = {
    "ISSUER": "https://${{ defaults.app_host }}.${{ SEALOS_CLOUD_DOMAIN }}",
    "SECRET_KEY": "${{ base64(defaults.secret) }}",  # 32 letters and digits, with 165 random bits
    "TRUSTED_PROXIES": "10.0.0.0/8",
}
"""The values of the settings for which the form of Sealos does not ask, with variables that Sealos replaces."""


def files() -> dict[Path, str]:
    """Return the text of each file, by its path."""
    return {**_files_of_1panel(), SEALOS: _file_of_sealos()}


def _files_of_1panel() -> dict[Path, str]:
    """Return the texts of 1Panel's form and Compose file, by their paths.

    The form puts the operator's answers into variables, from which the Compose file reads them.
    """
    [folder] = [path.parent for path in PANEL.glob("*/docker-compose.yml")]
    form = yaml.safe_load((folder / "data.yml").read_text("utf-8"))
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text("utf-8"))

    names = {asked.name for asked in ASKED}
    fields = form["additionalProperties"]["formFields"]
    other_fields = [field for field in fields if field["envKey"] not in names]
    form["additionalProperties"]["formFields"] = other_fields + [_field_of_1panel(asked) for asked in ASKED]

    services = compose["services"]
    answers = {PREFIX + asked.name: f"${{{asked.name}}}" for asked in ASKED}
    # The service `migrate` has only the variables of the database, which the service `wxauth` needs, too.
    services["wxauth"]["environment"] = services["migrate"]["environment"] | answers
    for service in services.values():
        service["image"] = IMAGE
    return {folder / "data.yml": _NOTICE + _dump(form), folder / "docker-compose.yml": _NOTICE + _dump(compose)}


def _field_of_1panel(asked: Asked) -> dict[str, Any]:
    """Return the field of 1Panel's form for a setting."""
    field: dict[str, Any] = {
        "envKey": asked.name,
        "labelZh": asked.label.zh,
        "labelEn": asked.label.en,
        "label": {"en": asked.label.en, "zh": asked.label.zh},
        "required": asked.is_required,
        "type": "text",
        "default": asked.default,
        "edit": True,
    }
    if asked.is_secret:
        field["type"] = "password"
    elif asked.choices:
        field["type"] = "select"
        field["values"] = [{"label": value, "value": value} for value in asked.choices]
    return field


def _file_of_sealos() -> str:
    """Return the text of the file for Sealos, which contains a form and the Kubernetes manifests of the app."""
    documents = list(yaml.safe_load_all(SEALOS.read_text("utf-8")))
    answers = {asked.name: f"${{{{ inputs.{asked.name} }}}}" for asked in ASKED}
    for document in documents:
        match document["kind"]:
            case "Template":
                asked_by_sealos = [asked for asked in ASKED if asked.name not in _SET_BY_SEALOS]
                document["spec"]["inputs"] = {asked.name: _input_of_sealos(asked) for asked in asked_by_sealos}
            case "Secret":
                document["stringData"] = {PREFIX + name: value for name, value in (answers | _SET_BY_SEALOS).items()}
            case "Deployment":
                _set_image(document)
    return _NOTICE + "---\n".join(_dump(document) for document in documents)


def _input_of_sealos(asked: Asked) -> dict[str, Any]:
    """Return the input of Sealos's form for a setting."""
    form_input: dict[str, Any] = {
        "description": f"{asked.label.en} {asked.label.zh}",
        "type": "choice" if asked.choices else "string",
        "default": asked.default,
        "required": asked.is_required,
    }
    if asked.choices:
        form_input["options"] = list(asked.choices)
    return form_input


def _set_image(deployment: Mapping[str, Any]) -> None:
    """Set the image of a Deployment and of all its containers."""
    deployment["metadata"]["annotations"]["originImageName"] = IMAGE
    pod = deployment["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        container["image"] = IMAGE


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """A dumper that repeats equal nodes instead of writing YAML aliases, which are hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted_if_replaced(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Represent a string, in quotation marks if it contains a variable such as `${NAME}`.

    A panel replaces the variable before the YAML is parsed. Without quotation marks, a value such as 180 would become a
    number.
    """
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "${" in text else None)


_Dumper.add_representer(str, _quoted_if_replaced)


def _dump(document: object) -> str:
    """Return a document as YAML, with its keys in the order that they have, and without line breaks in strings."""
    text: str = yaml.dump(document, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1000)
    return text


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, "utf-8")
