// This code uses WechatOpenSDK. Call registerApp when the app starts, with the universal link that you have also saved
// in WeChat's console. The link ends with a slash.
WXApi.registerApp("wx2b3c4d5e6f7a8b9c", universalLink: "https://shop.example.com/app/")

// Run this code when the user taps the button. `controller` is the view controller that contains the button. If WeChat
// is not installed, for example on the devices of Apple's reviewers, the controller shows WeChat's own login page.
let state = UUID().uuidString
let request = SendAuthReq()
request.scope = "snsapi_userinfo"
request.state = state
if WXApi.isWXAppInstalled() {
    WXApi.send(request)
} else {
    WXApi.sendAuthReq(request, viewController: controller, delegate: self)
}

func onResp(_ response: BaseResp) {                       // a method of WXApiDelegate
    guard let auth = response as? SendAuthResp else { return }
    // `show` is your function, which shows a message.
    guard auth.errCode == 0 else { return show(auth.errCode == -2 ? "已取消登录" : "登录失败，请重试") }
    guard auth.state == state, let code = auth.code else { return }
    var login = URLRequest(url: URL(string: "https://auth.example.com/v1/login")!)
    login.httpMethod = "POST"
    login.setValue("application/json", forHTTPHeaderField: "Content-Type")
    login.httpBody = try? JSONEncoder().encode(["code": code, "app_id": "wx2b3c4d5e6f7a8b9c"])
    URLSession.shared.dataTask(with: login) { data, answer, _ in
        guard (answer as? HTTPURLResponse)?.statusCode == 200 else { return } // show the title in data
        // The data contains access_token, refresh_token and user.
    }.resume()
}
