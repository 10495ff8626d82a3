"""The commands, one file a noun. Each loads only what it needs, so that `--help` is quick."""

import click

from wxauth import __version__
from wxauth.server.cli.admin import admin
from wxauth.server.cli.alive import alive
from wxauth.server.cli.apps import apps
from wxauth.server.cli.check import check
from wxauth.server.cli.clients import clients
from wxauth.server.cli.dev import dev
from wxauth.server.cli.keys import keys
from wxauth.server.cli.migrate import migrate
from wxauth.server.cli.moving import export_users, import_users
from wxauth.server.cli.openapi import openapi
from wxauth.server.cli.secret import secret
from wxauth.server.cli.serve import serve
from wxauth.server.cli.sweep import sweep
from wxauth.server.cli.users import users
from wxauth.server.cli.webhooks import webhooks


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""


for command in (import_users, export_users):
    users.add_command(command)
for command in (admin, alive, apps, check, clients, dev, keys, migrate, openapi, secret, serve, sweep, users, webhooks):
    main.add_command(command)
