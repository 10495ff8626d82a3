package wxauthguard

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// The kinds of refusals, for [errors.Is].
var (
	ErrRefused     = errors.New("the caller has no valid token")   // 401: the caller logs in or refreshes the token
	ErrForbidden   = errors.New("the caller may not do this")      // 403: a role or a scope is missing
	ErrUnavailable = errors.New("the token can't be verified now") // 503: the caller tries again
	errorOfStatus  = map[int]error{401: ErrRefused, 400: ErrRefused, 403: ErrForbidden, 503: ErrUnavailable}
	requestID      = regexp.MustCompile(`\A[A-Za-z0-9._-]{1,128}\z`)
	languageRange  = regexp.MustCompile(`(?i)\A\s*(zh|en)(?:[-_][a-z0-9_-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?\z`)
)

const (
	invalidChallenge = `Bearer error="invalid_token"`
	away             = "The login service can't be reached. Please try again."
	awayInChinese    = "暂时无法验证登录，请稍后再试。"
)

var kinds = map[string]struct {
	status            int
	english, chinese  string
	challenge         string
	retryAfterSeconds int
}{
	"invalid_request":    {400, "The request isn't valid.", "请求无效。", "", 0},
	"missing_token":      {401, "Please log in.", "请先登录。", "Bearer", 0},
	"invalid_token":      {401, "Your login is no longer valid. Please log in again.", "登录已失效，请重新登录。", invalidChallenge, 0},
	"token_expired":      {401, "Your login has expired. Please log in again.", "登录已过期，请重新登录。", invalidChallenge, 0},
	"session_revoked":    {401, "You have been logged out. Please log in again.", "你已退出登录，请重新登录。", invalidChallenge, 0},
	"insufficient_role":  {403, "You don't have permission to do this.", "你没有权限进行此操作。", "", 0},
	"insufficient_scope": {403, "Your credentials don't have permission to do this.", "当前凭据无权进行此操作。", `Bearer error="insufficient_scope"`, 0},
	"keys_unavailable":   {503, away, awayInChinese, "", 5},

	"verification_unavailable": {503, away, awayInChinese, "", 5},
}

// A Refusal is why a caller is refused. It is [ErrRefused], [ErrForbidden] or [ErrUnavailable].
type Refusal struct {
	Status   int    // 400, 401, 403 or 503
	Code     string // one of wxauth's codes, for example token_expired
	Detail   string // for the developer
	logged   string // a line for the log, or empty
	isOutage bool   // whether wxauth is away, so that a guard with OrOffline admits the token
}

func refusal(code, detail string) *Refusal {
	return &Refusal{Status: kinds[code].status, Code: code, Detail: detail}
}

func invalidToken(detail string) *Refusal { return refusal("invalid_token", detail) }

func (r *Refusal) because(format string, values ...any) *Refusal {
	r.logged = "a token was refused: " + fmt.Sprintf(format, values...)
	return r
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// Is reports whether this refusal is of a kind.
func (r *Refusal) Is(kind error) bool { return errorOfStatus[r.Status] == kind }

// Title returns the message for the user, in English or Chinese.
func (r *Refusal) Title(acceptLanguage string) string {
	if prefersChinese(acceptLanguage) {
		return kinds[r.Code].chinese
	}
	return kinds[r.Code].english
}

func (r *Refusal) setHeaders(header http.Header) {
	if challenge := kinds[r.Code].challenge; challenge != "" {
		header.Set("WWW-Authenticate", challenge)
	}
	if seconds := kinds[r.Code].retryAfterSeconds; seconds > 0 {
		header.Set("Retry-After", strconv.Itoa(seconds))
	}
}

// Problem returns the response to a caller whom [Guard.Verify] has refused, as a problem document (RFC 9457), in the
// language that an Accept-Language header prefers. Any other error becomes a 500 without details.
func Problem(err error, acceptLanguage string) (status int, header http.Header, body []byte) {
	return problem(err, acceptLanguage, "")
}

func problem(err error, acceptLanguage, wantedID string) (int, http.Header, []byte) {
	header := http.Header{"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}}
	var refused *Refusal
	if !errors.As(err, &refused) {
		return http.StatusInternalServerError, header, []byte(`{"status":500}`)
	}
	refused.setHeaders(header)
	language := "en"
	if prefersChinese(acceptLanguage) {
		language = "zh-CN"
	}
	id := wantedID
	if !requestID.MatchString(id) {
		random := make([]byte, 16)
		rand.Read(random)
		id = hex.EncodeToString(random)
	}
	header.Set("Content-Language", language)
	header.Set("X-Request-ID", id)
	document := map[string]any{
		"type": "urn:wxauth:problem:" + refused.Code, "title": refused.Title(acceptLanguage), "status": refused.Status,
		"detail": refused.Detail, "code": refused.Code, "request_id": id,
	}
	if refused.Code == "invalid_request" {
		document["errors"] = []any{}
	}
	body, _ := json.Marshal(document) // texts and numbers never fail
	return refused.Status, header, body
}

func writeProblem(w http.ResponseWriter, r *http.Request, refused *Refusal) {
	status, header, body := problem(refused, Language(r.Header.Get("Accept-Language"), r.UserAgent()), r.Header.Get("X-Request-ID"))
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	w.Write(body)
}

// Language returns the Accept-Language header, or the language of WeChat, whose wx.request sends no such header.
func Language(acceptLanguage, userAgent string) string {
	isOfOther := strings.Contains(userAgent, "Language/") && !strings.Contains(userAgent, "Language/zh")
	if strings.Trim(acceptLanguage, "* ") == "" && strings.Contains(userAgent, "MicroMessenger") && !isOfOther {
		return "zh"
	}
	return acceptLanguage
}

// prefersChinese returns whether an Accept-Language header prefers Chinese to English. zh_CN counts as zh-CN.
func prefersChinese(acceptLanguage string) bool {
	best := map[string]float64{}
	for position, part := range strings.Split(acceptLanguage[:min(len(acceptLanguage), 1024)], ",") {
		found := languageRange.FindStringSubmatch(part)
		if found == nil {
			continue
		}
		quality := 1.0
		if found[2] != "" {
			quality, _ = strconv.ParseFloat(found[2], 64)
		}
		if name := strings.ToLower(found[1]); quality > 0 {
			best[name] = max(best[name], quality-float64(position)/1e6) // of two equal ones, the first counts
		}
	}
	return best["zh"] > best["en"]
}
