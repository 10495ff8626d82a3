// Prints what silenceper/wechat gets from a simulated WeChat, the message that it seals, or its signatures of a
// payment. The SDK is unmodified except for WeChat's host, which it can't be configured to use.
package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/qrcode"
	"github.com/silenceper/wechat/v2/miniprogram/security"
	"github.com/silenceper/wechat/v2/miniprogram/urllink"
	officialConfig "github.com/silenceper/wechat/v2/officialaccount/config"
	officialMessage "github.com/silenceper/wechat/v2/officialaccount/message"
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

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func errcode(err error) int {
	return must(strconv.Atoi(regexp.MustCompile(`errcode=(\d+)`).FindStringSubmatch(err.Error())[1]))
}

func sealed(token, aesKey, appID, message string) string {
	encrypted := string(must(util.EncryptMsg([]byte(util.RandomStr(16)), []byte(message), appID, aesKey)))
	timestamp, nonce := fmt.Sprint(util.GetCurrTS()), util.RandomStr(16)
	return string(must(xml.Marshal(officialMessage.ResponseEncryptedXMLMsg{
		EncryptedMsg: encrypted,
		MsgSignature: util.Signature(token, timestamp, nonce, encrypted),
		Timestamp:    must(strconv.ParseInt(timestamp, 10, 64)),
		Nonce:        nonce,
	})))
}

func signed(appKey, sessionKey, data string) map[string]string {
	payment := wechat.NewWechat().GetMiniProgram(&config.Config{AppKey: appKey, Cache: cache.NewMemory()}).GetVirtualPayment()
	payment.SetSessionKey(sessionKey)
	paySig, signature, err := payment.PaySignature("requestVirtualPayment", data)
	return map[string]string{"paySig": must(paySig, err), "signature": signature}
}

func told(at, appID, secret, accountID, accountSecret string) map[string]any {
	http.DefaultClient.Transport = simulated{must(url.Parse(at))}
	util.DefaultHTTPClient = http.DefaultClient
	memory := cache.NewMemory()
	mini := wechat.NewWechat().GetMiniProgram(&config.Config{AppID: appID, AppSecret: secret, Cache: memory})
	openID := must(mini.GetAuth().Code2Session("alice")).OpenID
	_, wrongCode := mini.GetAuth().Code2Session("0a3xQ2000YpDuQ1x8g000R5bKj0xQ20z")
	code := qrcode.QRCoder{Scene: "a=1", Page: "pages/index/index"}
	picture := must(mini.GetQRCode().GetWXACodeUnlimit(code))
	code.Page = "pages/none"
	_, wrongPage := mini.GetQRCode().GetWXACodeUnlimit(code)
	account := wechat.NewWechat().GetOfficialAccount(&officialConfig.Config{AppID: accountID, AppSecret: accountSecret, Cache: memory})
	granted := must(account.GetOauth().GetUserAccessToken("alice"))
	return map[string]any{
		"openid":     openID,
		"wrong_code": errcode(wrongCode),
		"number":     must(mini.GetAuth().GetPhoneNumber("phone-13800138000")).PhoneInfo.PhoneNumber,
		"picture":    len(picture) > 500,
		"wrong_page": errcode(wrongPage),
		"link":       must(mini.GetURLLink().Generate(&urllink.ULParams{Path: "/pages/index/index", ExpireType: 0})),
		"suggest":    must(mini.GetSecurity().MsgCheck(&security.MsgCheckRequest{OpenID: openID, Scene: 1, Content: "fine"})).Result.Suggest,
		"granted":    granted.OpenID,
		"nickname":   must(account.GetOauth().GetUserInfo(granted.AccessToken, granted.OpenID, "zh_CN")).Nickname,
		"signature":  len(must(account.GetJs().GetConfig("https://shop.example.com/")).Signature),
	}
}

func main() {
	args := os.Args[2:]
	switch os.Args[1] {
	case "seal":
		fmt.Println(sealed(args[0], args[1], args[2], args[3]))
	case "sign":
		fmt.Println(string(must(json.Marshal(signed(args[0], args[1], args[2])))))
	default:
		fmt.Println(string(must(json.Marshal(told(args[0], args[1], args[2], args[3], args[4])))))
	}
}
