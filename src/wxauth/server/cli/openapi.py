"""`wxauth openapi`."""

import json

import click

from wxauth.server.service.app import create_api


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    click.echo(json.dumps(create_api().openapi(), ensure_ascii=False, indent=2))
