"""The command `python -m benchmarks.claims`, which measures the cost of the operator's own claims in access tokens."""

from collections.abc import Mapping, Sequence
from statistics import median
from time import process_time, time
from typing import Any, Final
from uuid import uuid4

import click

from wxauth.core.statements import model_of
from wxauth.core.token_claims import filled_claims
from wxauth.core.users import UserInSession
from wxauth.settings.claims import Template
from wxauth.tokens import AccessClaims, SigningKey, TokenIssuer

TOKENS: Final = 500
"""The number of tokens per template and round."""
TEMPLATES: Final[Mapping[str, Mapping[str, Any] | None]] = {
    "none": None,
    "none, again": None,
    "`role`": {"role": "authenticated"},
    "Hasura": {
        "https://hasura.io/jwt/claims": {
            "x-hasura-user-id": "$user.id",
            "x-hasura-default-role": "user",
            "x-hasura-allowed-roles": "$user.roles",
        }
    },
    "five": {
        "role": "authenticated",
        "tier": "$attributes.tier",
        "shop": "$attributes.shop",
        "unionid": "$user.unionid",
        "app": ["$app_id", "$openid"],
    },
}
USER: Final = model_of(
    UserInSession,
    {
        **dict.fromkeys(UserInSession.model_fields),
        "id": uuid4(),
        "app_id": "wx0123456789abcdef",
        "openid": "o6_bmjrPTlm6_2sgVt7hMZOPfL2M",
        "unionid": "o6_bmasdasdsad6_2sgVt7hMZOPfL",
        "roles": ["user", "editor"],
        "attributes": {"tier": "gold", "shop": {"id": 7, "city": "上海"}},
    },
)


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="Rounds after a first one that isn't counted.",
)
def main(rounds: int) -> None:
    """Measure the CPU time per token in this process, in µs, with each template in turn."""
    issuer, key = TokenIssuer(issuer="https://auth.test", audience="wxauth"), SigningKey.generate()
    samples: dict[str, list[float]] = {name: [] for name in TEMPLATES}
    for number in range(rounds + 1):
        for name, template in TEMPLATES.items():
            cost = _cost(issuer, key, template)
            if number:
                samples[name].append(cost)
    click.echo("| claims | CPU µs | adds µs |\n|---|--:|--:|")
    for name, costs in samples.items():
        click.echo(f"| {name} | {median(costs):.1f} | {_added(costs, samples['none']):+.1f} |")


def _cost(issuer: TokenIssuer, key: SigningKey, template: Template | None) -> float:
    now = int(time())
    started = process_time()
    for _ in range(TOKENS):
        issuer.issue(
            key,
            AccessClaims(
                user_id=USER.id,
                session_id=USER.id,
                app_id=USER.app_id,
                openid=USER.openid,
                roles=USER.roles,
                issued_at=now,
                expires_in=900,
                added=filled_claims(template, USER, may_contain_roles=True),
            ),
        )
    return (process_time() - started) / TOKENS * 1e6


def _added(costs: Sequence[float], bare: Sequence[float]) -> float:
    """Return the median of the differences, over the rounds in which both took turns."""
    return median(cost - base for cost, base in zip(costs, bare, strict=True))


if __name__ == "__main__":
    main()
