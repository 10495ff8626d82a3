"""Logins in the simulated WeChat, which exchange a code for a session_key or for the tokens of a grant."""

from dataclasses import dataclass
from typing import Any, Final

from wxauth_desk.wechat.api_calls import Answer, Call, ok, require
from wxauth_desk.wechat.controls import APP_KINDS, SECRETS, AppState, CodeRequest
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import Codes, Grant, Grants, IssuedSessionKeys
from wxauth_desk.wechat.people import is_person_name, openid_of, unionid_of
from wxauth_desk.wechat.phone_numbers import PLAIN_PHONE
from wxauth_desk.wechat.quotas import Quotas

_LOGINS_A_MINUTE: Final = 100  # with single-use codes, for each person and app


@dataclass
class Logins:
    """The simulated APIs that accept login codes, or the tokens of a grant."""

    codes: Codes[CodeRequest]
    session_keys: IssuedSessionKeys
    grants: Grants
    quotas: Quotas
    takes_names: bool  # whether any plain name works as a code that logs in the person with this name

    def log_in(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `code2session`."""
        code = call.query.get("js_code", "")
        # The phone might already have used the key of its code, so the login keeps this key. A plain name gets a new
        # key at each login.
        key_of_code = self.session_keys.of_code(code) if code in self.codes else None
        request = self._spend(call, account, code)
        openid = openid_of(request.person, account.app_id)
        session_key = self.session_keys.store(openid, request.person, key_of_code)
        return {"session_key": session_key, **_ids(request.person, request, account)}

    def issue_grant(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `access_token`."""
        request = self._spend(call, account, call.query.get("code", ""))
        scope = request.scope or ("snsapi_login" if APP_KINDS[account.app_id] == "website" else "snsapi_userinfo")
        # With the snapshot mode "false_alarm", WeChat marks a real person as invented.
        is_real_person = request.snapshot in (None, "false_alarm")
        marks = {"is_snapshotuser": 1} if request.snapshot in ("shown", "false_alarm") else {}
        # WeChat invents an openid for each person in a snapshot, but the same unionid for all of them.
        person = request.person if is_real_person else f"made up of {request.person}"
        ids = _ids(person, request, account)
        if scope == "snsapi_base":
            ids.pop("unionid", None)
        elif "unionid" in ids and not is_real_person:
            ids["unionid"] = unionid_of("made up")
        return {**self.grants.issue(Grant(account.app_id, person, ids, scope)), "scope": scope, **ids, **marks}

    def read_profile(self, call: Call) -> Answer:
        """Answer a call to `userinfo`."""
        grant = self._grant_of(call)
        require(grant.scope != "snsapi_base", Errcode.NOT_ALLOWED)
        picture = f"https://thirdwx.qlogo.cn/mmopen/vi_32/{grant.ids['openid']}/132"
        empty = dict.fromkeys(("province", "city", "country"), "")  # WeChat has left these fields empty since 2021
        return {**grant.ids, "nickname": grant.person, "sex": 0, **empty, "headimgurl": picture, "privilege": []}

    def check_grant(self, call: Call) -> Answer:
        """Answer a call to `auth`."""
        self._grant_of(call)
        return ok()

    def renew_grant(self, call: Call) -> Answer:
        """Answer a call to `refresh_token`."""
        app_id, token = call.query.get("appid", ""), call.query.get("refresh_token", "")
        require(app_id, Errcode.MISSING_APP_ID)
        require(app_id in SECRETS, Errcode.WRONG_APP_ID)
        require(call.query.get("grant_type") == "refresh_token", Errcode.WRONG_GRANT_TYPE)
        grant = self.grants.of_refresh_token(token, app_id)
        return {**self.grants.issue(grant, refresh_token=token), "openid": grant.ids["openid"], "scope": grant.scope}

    def _grant_of(self, call: Call) -> Grant:
        return self.grants.of_access_token(call.query.get("access_token", ""), call.query.get("openid", ""))

    def _spend(self, call: Call, account: AppState, code: str) -> CodeRequest:
        require(code, Errcode.MISSING_CODE)
        require(call.query.get("grant_type") == "authorization_code", Errcode.WRONG_GRANT_TYPE)
        self.quotas.count(account, call.api)
        # Only mini-programs may call `code2session`, and only other apps may call `access_token`.
        is_mini_program = APP_KINDS[account.app_id] == "mini_program"
        require(is_mini_program == (call.api == "code2session"), Errcode.WRONG_CODE)
        if code in self.codes:
            errcode_of_expired = Errcode.WRONG_CODE if is_mini_program else Errcode.EXPIRED_CODE
            request = self.codes.spend(code, account.app_id, errcode_of_expired=errcode_of_expired)
            # The limit below does not apply to plain names, because the real WeChat does not accept names as codes.
            openid = openid_of(request.person, account.app_id)
            self.quotas.count_in_minute(call.api, openid, at_most=_LOGINS_A_MINUTE, errcode=Errcode.TOO_FREQUENT)
            return request
        # `phone-13800138000` could also be a person's name, but here it is a code of the phone button.
        require(self.takes_names and is_person_name(code) and not PLAIN_PHONE.fullmatch(code), Errcode.WRONG_CODE)
        return CodeRequest(person=code, app_id=account.app_id)


def _ids(person: str, request: CodeRequest, account: AppState) -> dict[str, Any]:
    ids = {"openid": openid_of(person, account.app_id)}
    if request.has_unionid and account.has_unionids:
        ids["unionid"] = unionid_of(person)
    return ids
