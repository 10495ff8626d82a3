// This code uses fluwx and http. Call registerApi when the app starts, with the universal link that you have also saved
// in WeChat's console. The link ends with a slash.
await fluwx.registerApi(appId: 'wx2b3c4d5e6f7a8b9c', universalLink: 'https://shop.example.com/app/');

final state = const Uuid().v4();
fluwx.addSubscriber((response) async {
  if (response is! WeChatAuthResponse) return;
  // `show` is your function, which shows a message.
  if (response.errCode != 0) return show(response.errCode == -2 ? '已取消登录' : '登录失败，请重试');
  if (response.state != state) return;
  final answer = await http.post(Uri.parse('https://auth.example.com/v1/login'),
      headers: {'Content-Type': 'application/json'},
      body: jsonEncode({'code': response.code, 'app_id': 'wx2b3c4d5e6f7a8b9c'}));
  final body = jsonDecode(utf8.decode(answer.bodyBytes));
  if (answer.statusCode != 200) throw Exception(body['title']); // show this message to the user
});
await fluwx.authBy(which: NormalAuth(scope: 'snsapi_userinfo', state: state));
