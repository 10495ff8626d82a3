// With com.tencent.mm.opensdk and OkHttp.
val request = SendAuth.Req().apply { scope = "snsapi_userinfo"; state = UUID.randomUUID().toString() }
api.sendReq(request)

// wxapi/WXEntryActivity
override fun onResp(response: BaseResp) {
    val auth = response as? SendAuth.Resp ?: return
    if (auth.errCode != BaseResp.ErrCode.ERR_OK) return show(if (auth.errCode == -2) "已取消登录" else "登录失败，请重试") // yours
    if (auth.state != expectedState) return
    val body = JSONObject(mapOf("code" to auth.code, "app_id" to "wx2b3c4d5e6f7a8b9c")).toString()
    val login = Request.Builder().url("https://auth.example.com/v1/login")
        .post(body.toRequestBody("application/json".toMediaType())).build()
    OkHttpClient().newCall(login).enqueue(callback) // isSuccessful: access_token, refresh_token, user; else title: for the user
}
