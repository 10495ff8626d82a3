"""The command `wxauth-desk`.

Each subcommand imports the modules that it needs only when it is called, because some of them require the service or a
POSIX system.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from importlib.util import find_spec
from inspect import cleandoc
from typing import Final

import click

from wxauth_desk import __version__
from wxauth_desk.i18n import SOURCE, Text, lazy_gettext as _
from wxauth_desk.terminal import TextError, localized, terminal_language

_PORT: Final = click.IntRange(1, 65535)


class LocalizedGroup(click.Group):
    """A group whose commands show their help in the language of the terminal."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command with its help in the language of the terminal; None if there is no such command.

        A translated command is a copy, because the original must keep its English texts, with which the translations
        are looked up.
        """
        command = super().get_command(ctx, cmd_name)
        if command is None or terminal_language() == SOURCE:
            return command
        translated = copy(command)
        translated.help = localized(Text(cleandoc(command.help or "")))
        translated.params = [copy(each) for each in command.params]
        for option in translated.params:
            if isinstance(option, click.Option) and option.help:
                option.help = localized(Text(option.help))
        return translated


class CommandFailed(click.ClickException):
    """An error that ends the command with status 1, after its message has been printed."""

    def show(self, file: object = None) -> None:
        """Print the message to standard error, without click's `Error:` before it."""
        del file
        click.echo(self.message, err=True)


@contextmanager
def failures_printed() -> Iterator[None]:
    """Turn a TextError that the block raises into CommandFailed, with the text in the language of the terminal."""
    try:
        yield
    except TextError as exc:
        raise CommandFailed(localized(exc.text)) from None


@click.group(cls=LocalizedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth-desk")
def main() -> None:
    """Run a simulated WeChat, a simulated phone and example sites on a laptop."""


@main.command()
@click.option(
    "--port",
    type=_PORT,
    help="The port of the service. Default: WXAUTH_PORT or 8000. The default values of the other ports depend on this "
    "port.",
)
@click.option(
    "--wechat-port",
    type=_PORT,
    help="The port of the simulated WeChat. Default: the service's port + 1, if this port is free.",
)
@click.option(
    "--site-port",
    type=_PORT,
    help="The port of the example sites. Default: the service's port + 4, if this port is free.",
)
@click.option("--allow-host", "allowed_hosts", multiple=True, help="Another host name to accept. Repeatable.")
@click.option("--shop", "shop_url", metavar="URL", help="Use your own shop back end instead of the example back end.")
def dev(
    port: int | None,
    wechat_port: int | None,
    site_port: int | None,
    allowed_hosts: tuple[str, ...],
    shop_url: str | None,
) -> None:
    """Run the service for development, without any configuration.

    The command starts its own PostgreSQL (kept in .wxauth/), a simulated WeChat, and example sites where users log in
    with a QR code. If you set WXAUTH_APP_ID, the service uses the real WeChat. The AppSecret then comes from
    WXAUTH_APP_SECRET, or the command prompts for it. If you set WXAUTH_DATABASE_URL, the service uses that database.

    The service responds only to names of this machine: localhost, the host names in WXAUTH_HOST and WXAUTH_ISSUER, and
    the names given with --allow-host.
    """
    if os.name != "posix":
        raise CommandFailed(localized(_("wxauth-desk dev requires Linux or macOS. On Windows, use WSL.")))
    if not _has_service_and_guard():
        text = _(
            "wxauth-desk dev requires the service and the guard. In a clone of wxauth, run pip install "
            "./clients/python . ./desk"
        )
        raise CommandFailed(localized(text))
    # These modules require the service or a POSIX system, so they are imported after the checks.
    from wxauth.cli.resources import failures_printed as service_failures_printed
    from wxauth_desk.run import run

    host_names = [_host_name(host) for host in allowed_hosts]
    with failures_printed(), service_failures_printed():
        run(
            port=port,
            wechat_port=wechat_port,
            site_port=site_port,
            shop_url=shop_url,
            allowed_hosts=host_names,
        )


def _host_name(host: str) -> str:
    from wxauth_desk.middleware import name_in

    name = name_in(host)
    if name is None:
        text = _("--allow-host must be a host name or an address such as laptop.example.com")
        # A full stop is added, as in click's own usage errors. In Chinese, it has a form of its own.
        raise click.UsageError(localized(text) + localized(_(".")))
    return name


def _has_service_and_guard() -> bool:
    """Return whether a module of each of the packages wxauth and wxauth_guard is installed.

    Python would also import a mere folder of that name, for example a clone below the current folder, as an empty
    package.
    """
    try:
        return all(find_spec(name) is not None for name in ("wxauth.cli", "wxauth_guard.verifier"))
    except ModuleNotFoundError:  # the package itself is missing
        return False


@main.command()
@click.option("--port", type=_PORT, default=8001, help="The port of the simulated WeChat.", show_default=True)
def wechat(port: int) -> None:
    """Run only the simulated WeChat, without a database.

    The simulated WeChat responds as api.weixin.qq.com does. Use it with a program or an SDK whose API host you can set.
    The manual at /about lists the AppIDs, AppSecrets and controls.
    """
    from wxauth_desk import alone

    with failures_printed():
        alone.run(port)
