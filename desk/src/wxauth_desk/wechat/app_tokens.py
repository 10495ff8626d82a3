"""The access tokens and tickets of apps in the simulated WeChat."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from wxauth_desk.wechat.api_calls import Answer, Call, ok, require
from wxauth_desk.wechat.controls import APP_KINDS, AppState
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import AccessTokens
from wxauth_desk.wechat.quotas import Quotas

_TICKET_LIFETIME_SECONDS: Final = 7200
_TICKET_RENEWAL_SECONDS: Final = 300  # the remaining lifetime of a ticket at which a call gets a new one


class _JsTicket(NamedTuple):
    """A ticket, with which pages of a service account call WeChat's JS-SDK."""

    text: str
    expires_at: int


@dataclass
class AppTokens:
    """The APIs that hand out tokens and tickets to apps."""

    access_tokens: Mapping[str, AccessTokens]  # by the id of the app
    quotas: Quotas
    clock: Callable[[], int]
    js_tickets: dict[str, _JsTicket] = field(init=False, default_factory=dict)  # by the id of the app

    def issue_token(self, call: Call, account: AppState) -> Answer:
        """Answer a call to the older interface, `token`."""
        self._admit(call, account, call.query.get("grant_type"))
        return self.access_tokens[account.app_id].issue_token()

    def hand_out_stable_token(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `stable_token`."""
        self._admit(call, account, call.json.get("grant_type"))
        return self.access_tokens[account.app_id].hand_out_stable_token(force=call.json.get("force_refresh") is True)

    def read_js_ticket(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getticket`."""
        require(call.query.get("type") == "jsapi", Errcode.WRONG_ARGUMENT)
        require(APP_KINDS[account.app_id] == "official_account", Errcode.NOT_ALLOWED)
        now = self.clock()
        ticket = self.js_tickets.get(account.app_id)
        if ticket is None or ticket.expires_at - now <= _TICKET_RENEWAL_SECONDS:
            ticket = _JsTicket(secrets.token_urlsafe(48), now + _TICKET_LIFETIME_SECONDS)
            self.js_tickets[account.app_id] = ticket
        return ok(ticket=ticket.text, expires_in=ticket.expires_at - now)

    def _admit(self, call: Call, account: AppState, grant_type: object) -> None:
        require(grant_type == "client_credential", Errcode.WRONG_GRANT_TYPE)
        # An app of the Open Platform has no token of its own, because it can do only what its users have granted.
        require(APP_KINDS[account.app_id] not in ("website", "mobile_app"), Errcode.WRONG_APP_ID)
        require(account.is_whitelisted, Errcode.NOT_WHITELISTED)
        self.quotas.count(account, call.api)
