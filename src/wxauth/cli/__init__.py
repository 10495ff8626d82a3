"""The commands, one file a noun. Each loads only what it needs, so that `--help` is quick."""

import click

from wxauth import __version__
from wxauth.cli.admin import admin
from wxauth.cli.alive import alive
from wxauth.cli.apps import apps
from wxauth.cli.check import check
from wxauth.cli.clients import clients
from wxauth.cli.dev import dev
from wxauth.cli.keys import keys
from wxauth.cli.migrate import migrate
from wxauth.cli.moving import export_users, import_users
from wxauth.cli.openapi import openapi
from wxauth.cli.secret import secret
from wxauth.cli.serve import serve
from wxauth.cli.sweep import sweep
from wxauth.cli.users import users
from wxauth.cli.webhooks import webhooks


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""


for command in (import_users, export_users):
    users.add_command(command)
for command in (admin, alive, apps, check, clients, dev, keys, migrate, openapi, secret, serve, sweep, users, webhooks):
    main.add_command(command)
