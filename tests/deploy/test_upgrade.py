"""An upgrade of one machine with systemd, by the commands that `deploy/README.md` shows."""

import os
import re
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.deploy.conftest import people_at_work
from tests.deploy.test_nginx import nginx_before
from tests.deploy.test_systemd import FOLDER, SERVICE, SHIPPED, installed_settings, section
from tests.docs import ROOT, code_blocks
from tests.forked import stand_in
from tests.processes import environment, free_port, serving, until
from tests.programs import output_of
from wxauth.server.dev.wechat import APPS, create_simulator

SYSTEMCTL = """\
#!/bin/sh
# Does with the units what systemd would do.
set -eu
case "$*" in
"start wxauth-migrate") wxauth migrate ;;
"restart wxauth@"*)
    port="${{2#wxauth@}}"
    if [ -e "$port.pid" ]; then
        read -r pid <"$port.pid"
        kill "$pid"
        while readlink "/proc/$pid/exe" >/dev/null; do sleep 0.05; done
    fi
    {start} >>"$port.log" 2>&1 &
    echo $! >"$port.pid"
    ;;
*) exit 1 ;;
esac
"""


@pytest.mark.proxy
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_the_upgrade_shown_fails_no_request(tmp_path: Path, database_url: str) -> None:
    shown, in_chinese = [each for each in code_blocks(ROOT / "deploy/README.md", "sh") if "systemctl restart" in each]
    assert re.sub("#.*", "", shown) == re.sub("#.*", "", in_chinese)
    ports = [str(free_port()), str(free_port())]
    install, link, *upgrade = shown.replace("8001 8002", " ".join(ports)).splitlines()
    assert (install, link.split()[0], link.split()[-1]) == ("deploy/systemd/install", "ln", "/opt/wxauth")
    programs = tmp_path / "programs"
    programs.mkdir()
    machine = environment(
        PATH=f"{FOLDER}:{programs}:{os.environ['PATH']}",
        WXAUTH_ETC=str(tmp_path),
        WXAUTH_PROGRAM=str(stand_in(programs)),
    )

    def run(command: str) -> None:
        output_of("sh", "-euc", command, cwd=tmp_path, env=machine)

    with serving(create_simulator()) as wechat_url:
        lines = ["WXAUTH_TRUSTED_PROXIES=127.0.0.1", f"WXAUTH_WECHAT_BASE_URL={wechat_url}"]
        installed_settings(tmp_path, database_url, *lines, "WXAUTH_LOGIN_RATE_LIMIT=1000000/minute")
        for name in ("app_id", "app_secret"):
            (tmp_path / f"secrets/{name}").write_text(APPS[0][name])
        given = {"WXAUTH_SECRETS_DIR": str(tmp_path / "credentials"), **dict(line.split("=", 1) for line in lines)}
        (tmp_path / "credentials").mkdir()
        for path in (tmp_path / "secrets").iterdir():
            (tmp_path / f"credentials/wxauth_{path.name}").symlink_to(path)
        start = (
            section(SERVICE, "Service")["ExecStart"].replace(SHIPPED, machine["WXAUTH_PROGRAM"]).replace("%i", "$port")
        )
        variables = shlex.join(["env", *(f"{name}={value}" for name, value in given.items())])
        (programs / "systemctl").write_text(SYSTEMCTL.format(start=f"{variables} {start}"))
        (programs / "systemctl").chmod(0o700)
        try:
            for port in ports:
                run(f"systemctl restart wxauth@{port}")
                run(f"until WXAUTH_PORT={port} wxauth alive --ready; do sleep 0.2; done")
            upstreams = [f"127.0.0.1:{port}" for port in ports]
            with nginx_before(upstreams, tmp_path) as nginx, people_at_work(nginx.client) as seen:
                until(lambda: seen["200"] > 50)
                run("\n".join(upgrade))
                so_far = seen.total()
                until(lambda: seen.total() > so_far + 50)
        finally:
            for port in ports:
                with suppress(OSError, ValueError):
                    os.kill(int((tmp_path / f"{port}.pid").read_text()), signal.SIGKILL)
    assert set(seen) == {"200"}, seen
    assert [(tmp_path / f"{port}.log").read_text().count('"started"') for port in ports] == [2, 2]
