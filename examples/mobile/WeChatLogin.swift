// With WechatOpenSDK. At the start of the app, with the link that WeChat's console has too: it ends in a slash.
WXApi.registerApp("wx2b3c4d5e6f7a8b9c", universalLink: "https://shop.example.com/app/")

// At the button, `controller` being what shows it: without WeChat, as on Apple's own devices, WeChat's page opens there.
let state = UUID().uuidString
let request = SendAuthReq()
request.scope = "snsapi_userinfo"
request.state = state
if WXApi.isWXAppInstalled() {
    WXApi.send(request)
} else {
    WXApi.sendAuthReq(request, viewController: controller, delegate: self)
}

func onResp(_ response: BaseResp) {                       // WXApiDelegate
    guard let auth = response as? SendAuthResp else { return }
    guard auth.errCode == 0 else { return show(auth.errCode == -2 ? "已取消登录" : "登录失败，请重试") } // yours
    guard auth.state == state, let code = auth.code else { return }
    var login = URLRequest(url: URL(string: "https://auth.example.com/v1/login")!)
    login.httpMethod = "POST"
    login.setValue("application/json", forHTTPHeaderField: "Content-Type")
    login.httpBody = try? JSONEncoder().encode(["code": code, "app_id": "wx2b3c4d5e6f7a8b9c"])
    URLSession.shared.dataTask(with: login) { data, answer, _ in
        guard (answer as? HTTPURLResponse)?.statusCode == 200 else { return } // title: for the user
        // access_token, refresh_token, user
    }.resume()
}
