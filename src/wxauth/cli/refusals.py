"""`wxauth refusals`: list refused logins."""

from functools import partial
from ipaddress import ip_network
from typing import Any

import click

from wxauth.cli.printing import checked, json_option, show_items, takes, to_the_second
from wxauth.cli.resources import with_database
from wxauth.i18n import lazy_gettext as _
from wxauth.login.record_queries import RefusalSearch, list_refusals

_network = checked(partial(ip_network, strict=False), _("must be a network or an address, such as 203.0.113.0/24"))


@click.command()
@takes(RefusalSearch, network={"callback": _network, "metavar": "CIDR"})
@json_option
def refusals(given: dict[str, Any]) -> None:
    """Print refused logins, the newest first.

    They are kept for 14 days. COUNT is the number of refusals in a line. JSON is that of GET /v1/admin/refusals.
    """
    search = RefusalSearch.model_construct(**given)
    show_items(
        with_database(lambda database, _: list_refusals(database, search)),
        "at code app_id user_id network request_id count",
        at=lambda refusal: to_the_second(refusal.at),
        code=lambda it: it.code + ("" if it.wechat_errcode is None else f" ({it.wechat_errcode})"),
    )
