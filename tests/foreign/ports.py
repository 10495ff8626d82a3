"""Runs programs on a machine that has ten local ports."""

import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.programs import output_of

FEW = """
import fcntl, os, socket, struct, sys
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as ports:
    ports.write("50000 50009")
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execvp(sys.argv[1], sys.argv[1:])
"""


def output_with_few_ports(*command: str, **options: Any) -> str:
    """Run a program in a network of its own, and return what it prints."""
    alone = (shutil.which("unshare") or "false", "--user", "--map-root-user", "--net", sys.executable, "-c", FEW)
    if subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs unshare(1), and the right to create a network 需要 unshare 与创建网络命名空间的权限")
    return output_of(*alone, *command, **options)
