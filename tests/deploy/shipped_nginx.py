"""Runs nginx with the file of `deploy/nginx`."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.certificates import Authority
from tests.processes import PATIENCE, free_port, is_served, until
from tests.programs import ROOT
from tests.proxies.running import nginx_with

TEXT = (ROOT / "deploy/nginx/wxauth.conf").read_text()


@dataclass(frozen=True)
class Front:
    """nginx in front of two replicas."""

    port: int
    trusted: ssl.SSLContext

    def client(self) -> httpx.Client:
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, verify=self.trusted, trust_env=False, timeout=PATIENCE)


@contextmanager
def shipped_nginx(folder: Path, replicas: Sequence[str], text: str = TEXT) -> Iterator[Front]:
    """Run nginx with the file of `deploy/nginx`, which a test can change, in front of two replicas."""
    own, plain = free_port(), free_port()
    authority = Authority(folder)
    authority.server("127.0.0.1")
    certificate = folder / "server.pem"
    addresses = {
        "listen 443 ssl": f"listen 127.0.0.1:{own} ssl",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "127.0.0.1:8001": replicas[0],
        "127.0.0.1:8002": replicas[1],
        "/etc/letsencrypt/live/auth.example.com/fullchain.pem": str(certificate),
        "/etc/letsencrypt/live/auth.example.com/privkey.pem": str(certificate),
        "/var/log/wxauth/access.log": f"{folder}/access.log",
    }
    with nginx_with(text, folder, addresses) as command:
        until(lambda: is_served(own) or command.process.poll() is not None)
        assert command.process.poll() is None, command.output
        yield Front(own, authority.trusted())
