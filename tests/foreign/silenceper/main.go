// silenceper/wechat, unmodified but for the host of WeChat, which it cannot be told: prints what a simulated one tells it.
package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/qrcode"
	"github.com/silenceper/wechat/v2/miniprogram/security"
	"github.com/silenceper/wechat/v2/miniprogram/urllink"
	officialConfig "github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/util"
)

type simulated struct{ at *url.URL }

func (s simulated) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Host, "weixin.qq.com") {
		request = request.Clone(request.Context())
		request.URL.Scheme, request.URL.Host, request.Host = s.at.Scheme, s.at.Host, s.at.Host
	}
	return http.DefaultTransport.RoundTrip(request)
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func main() {
	at, err := url.Parse(os.Args[1])
	if err != nil {
		panic(err)
	}
	http.DefaultClient.Transport = simulated{at}
	util.DefaultHTTPClient = http.DefaultClient
	memory := cache.NewMemory()
	mini := wechat.NewWechat().GetMiniProgram(&config.Config{AppID: os.Args[2], AppSecret: os.Args[3], Cache: memory})
	session, err := mini.GetAuth().Code2Session("alice")
	told := map[string]any{"openid": session.OpenID, "login": words(err)}
	_, err = mini.GetAuth().Code2Session("0a3xQ2000YpDuQ1x8g000R5bKj0xQ20z")
	told["wrong_code"] = words(err)
	number, err := mini.GetAuth().GetPhoneNumber("phone-13800138000")
	told["number"], told["phone"] = number.PhoneInfo.PhoneNumber, words(err)
	code := qrcode.QRCoder{Scene: "a=1", Page: "pages/index/index"}
	picture, err := mini.GetQRCode().GetWXACodeUnlimit(code)
	told["picture"], told["drawn"] = len(picture) > 500, words(err)
	code.Page = "pages/none"
	_, err = mini.GetQRCode().GetWXACodeUnlimit(code)
	told["wrong_page"] = words(err)
	link, err := mini.GetURLLink().Generate(&urllink.ULParams{Path: "/pages/index/index", ExpireType: 0})
	told["link"], told["linked"] = link, words(err)
	checked, err := mini.GetSecurity().MsgCheck(&security.MsgCheckRequest{OpenID: session.OpenID, Scene: 1, Content: "fine"})
	told["suggest"], told["checked"] = checked.Result.Suggest, words(err)
	account := wechat.NewWechat().GetOfficialAccount(&officialConfig.Config{AppID: os.Args[4], AppSecret: os.Args[5], Cache: memory})
	granted, err := account.GetOauth().GetUserAccessToken("alice")
	told["granted"], told["grant"] = granted.OpenID, words(err)
	person, err := account.GetOauth().GetUserInfo(granted.AccessToken, granted.OpenID, "zh_CN")
	told["nickname"], told["info"] = person.Nickname, words(err)
	signed, err := account.GetJs().GetConfig("https://shop.example.com/")
	told["signature"], told["signed"] = len(signed.Signature), words(err)
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		panic(err)
	}
}
