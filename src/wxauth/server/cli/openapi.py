"""`wxauth openapi`."""

import click


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from wxauth.server.service.app import create_api

    click.echo(json.dumps(create_api().openapi(), ensure_ascii=False, indent=2))
