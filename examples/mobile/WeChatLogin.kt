// This code uses com.tencent.mm.opensdk and OkHttp.
val request = SendAuth.Req().apply { scope = "snsapi_userinfo"; state = UUID.randomUUID().toString() }
api.sendReq(request)

// This function belongs to wxapi/WXEntryActivity.
override fun onResp(response: BaseResp) {
    val auth = response as? SendAuth.Resp ?: return
    // `show` is your function, which shows a message.
    if (auth.errCode != BaseResp.ErrCode.ERR_OK) return show(if (auth.errCode == -2) "已取消登录" else "登录失败，请重试")
    if (auth.state != expectedState) return
    val body = JSONObject(mapOf("code" to auth.code, "app_id" to "wx2b3c4d5e6f7a8b9c")).toString()
    val login = Request.Builder().url("https://auth.example.com/v1/login")
        .post(body.toRequestBody("application/json".toMediaType())).build()
    // If isSuccessful is true, the response contains access_token, refresh_token and user. Otherwise, show its title.
    OkHttpClient().newCall(login).enqueue(callback)
}
