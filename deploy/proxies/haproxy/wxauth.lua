-- This action asks wxauth whether a request is allowed, and who the user is. Use it in haproxy.cfg:
--
--     http-request lua.wxauth /v1/verify
--     http-request lua.wxauth /v1/verify?role=clerk&role=auditor
--
-- If wxauth allows the request, the action sets txn.wxauth to "passed", and sets the X-Auth-* headers. Otherwise, it
-- returns wxauth's response to the client.
-- 询问 wxauth 请求是否放行。放行时，把 txn.wxauth 设为 "passed"，并设置 X-Auth-* 请求头；否则把 wxauth 的响应返回给客户端。

local ASKED_AT = os.getenv("ASKED_AT") -- the address of "listen wxauth" in haproxy.cfg
local PATIENCE = 20000 -- milliseconds, which is longer than a request through that section can take
local ASKED_WITH = { "authorization", "accept-language", "user-agent", "x-request-id" }
local IDENTITY = {
    "x-auth-user-id",
    "x-auth-app-id",
    "x-auth-openid",
    "x-auth-session-id",
    "x-auth-roles",
    "x-auth-scope",
}
local OF_THE_CONNECTION = { ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true }

local UNAVAILABLE = [[{"type":"urn:wxauth:problem:keys_unavailable","title":"%s","status":503,]]
    .. [["detail":"wxauth gives the proxy no answer","code":"keys_unavailable","request_id":"%s"}]]

-- Return the first value of a header, or an empty string. HAProxy's tables of values begin at index 0.
local function first(field)
    return field and field[0] or ""
end

-- Return the error for the client if wxauth doesn't respond.
local function unavailable(given)
    local language, title = "en", "The login service can't be reached. Please try again."
    if first(given["accept-language"]):lower():find("^zh") then
        language, title = "zh-CN", "暂时无法验证登录，请稍后再试。"
    end
    local headers = {
        ["cache-control"] = { "no-store" },
        ["content-language"] = { language },
        ["content-type"] = { "application/problem+json" },
        ["retry-after"] = { "5" },
    }
    return { status = 503, headers = headers, body = UNAVAILABLE:format(title, first(given["x-request-id"])) }
end

core.register_action("wxauth", { "http-req" }, function(txn, path)
    local given = txn.http:req_get_headers()
    local headers = { ["x-forwarded-for"] = { txn.f:src() } }
    for _, name in ipairs(ASKED_WITH) do
        headers[name] = given[name]
    end
    -- Whatever the client's request is, wxauth is asked with a GET that has no body.
    local answer = core.httpclient():get({
        url = "http://wxauth" .. path,
        dst = ASKED_AT,
        headers = headers,
        timeout = PATIENCE,
    })
    local answered = answer.headers or {}
    if answer.status == 200 and answered["x-auth-user-id"] then
        for _, name in ipairs(IDENTITY) do
            txn.http:req_set_header(name, first(answered[name]))
        end
        txn:set_var("txn.wxauth", "passed")
        return
    end
    if first(answered["content-type"]) ~= "application/problem+json" then
        answer = unavailable(given)
    end
    local reply = txn:reply({ status = answer.status, body = answer.body })
    for name, values in pairs(answer.headers) do
        for _, value in pairs(values) do
            if not OF_THE_CONNECTION[name] then
                reply:add_header(name, value)
            end
        end
    end
    txn:done(reply)
end, 1)
