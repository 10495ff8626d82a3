"""`deploy/systemd/wxauth` runs any command with the service's settings, and reads them from its files."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs import ROOT

CREDENTIALS = {"database_url": "postgresql://wxauth@localhost:5432/wxauth", "secret_key": "AAEC", "app_id": "wx1a2b"}


@pytest.mark.process
def test_a_command_run_by_root_has_the_services_settings(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    for name, value in CREDENTIALS.items():
        (tmp_path / "secrets" / name).write_text(value)
    lines = ["# a comment", "", "WXAUTH_WORKERS=2", 'WXAUTH_CONSENTS="privacy:$HOME"', "WXAUTH_ISSUER='https://a b'"]
    (tmp_path / "settings.env").write_text("\n".join(lines))
    shows = tmp_path / "wxauth"
    (tmp_path / "secrets/app_secret").write_text("what the shell has counts")
    (tmp_path / "secrets/secret_key~").write_text("an editor's copy is no setting")
    names = " ".join(f'"$WXAUTH_{name.upper()}"' for name in (*CREDENTIALS, "app_secret"))
    settings = f'"$WXAUTH_WORKERS" "$WXAUTH_CONSENTS" "$WXAUTH_ISSUER" {names}'
    shows.write_text(f'#!/bin/sh\nprintf "%s\\n" "$$" "$*" {settings}\nexit 3\n')
    shows.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path),
        "WXAUTH_ETC": str(tmp_path),
        "WXAUTH_PROGRAM": str(shows),
        "WXAUTH_APP_SECRET": "of the shell",
    }
    command = [str(ROOT / "deploy/systemd/wxauth"), "users", "list"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        shown, failed = process.communicate()
    printed = [
        str(process.pid),
        "users list",
        "2",
        "privacy:$HOME",
        "https://a b",
        *CREDENTIALS.values(),
        "of the shell",
    ]
    assert (process.returncode, shown.splitlines(), failed) == (3, printed, ""), "signals reach wxauth by its own id"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secrets", "settings.env", "wxauth"]
