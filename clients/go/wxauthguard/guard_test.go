package wxauthguard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxauth/wxauth/clients/go/wxauthguard"
	"github.com/wxauth/wxauth/clients/go/wxauthguardtest"
)

const bob = "01900000-0000-7000-8000-0000000000b0"

// ask returns the status and the code of the response to a request with these Authorization headers.
func ask(guarded http.Handler, headers ...string) string {
	request, answer := httptest.NewRequest("GET", "/orders", nil), httptest.NewRecorder()
	request.Header["Authorization"] = headers
	guarded.ServeHTTP(answer, request)
	var problem struct{ Code string }
	json.Unmarshal(answer.Body.Bytes(), &problem)
	return strings.TrimSpace(fmt.Sprint(answer.Code, " ", problem.Code, " ", answer.Header().Get("WWW-Authenticate")))
}

func served(w http.ResponseWriter, r *http.Request) {
	user := wxauthguard.UserFrom(r.Context())
	if user == nil {
		w.WriteHeader(http.StatusNoContent)
	}
}

func TestARouteAdmitsItsUsersAlone(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	guard := wxauthguard.New(issuer.URL)
	good := issuer.Token(wxauthguardtest.Token{})
	refused := `401 invalid_token Bearer error="invalid_token"`
	staff := guard.Middleware(http.HandlerFunc(served), "staff", "clerk")
	for name, test := range map[string]struct{ given, expected string }{
		"a good token":              {ask(guard.Middleware(http.HandlerFunc(served)), "Bearer "+good), "200"},
		"a scheme in small letters": {ask(guard.Middleware(http.HandlerFunc(served)), "bearer  "+good+" "), "200"},
		"none":                      {ask(guard.Middleware(http.HandlerFunc(served))), "401 missing_token Bearer"},
		"another scheme":            {ask(guard.Middleware(http.HandlerFunc(served)), "Basic "+good), "401 missing_token Bearer"},
		"two headers":               {ask(guard.Middleware(http.HandlerFunc(served)), "Bearer "+good, "Bearer "+good), "400 invalid_request"},
		"a line end":                {ask(guard.Middleware(http.HandlerFunc(served)), "Bearer "+good+"\n"), refused},
		"another part":              {ask(guard.Middleware(http.HandlerFunc(served)), "Bearer "+good+".x"), refused},
		"another signature":         {ask(guard.Middleware(http.HandlerFunc(served)), "Bearer "+good[:len(good)-9]+"AAAAAAAAA"), refused},
		"too long":                  {ask(guard.Middleware(http.HandlerFunc(served)), "Bearer "+strings.Repeat("e", 9000)), refused},
		"an audience of others":     {ask(guard.Middleware(http.HandlerFunc(served)), issuer.Authorization(wxauthguardtest.Token{Audience: "shop"})), refused},
		"expired a moment ago":      {ask(guard.Middleware(http.HandlerFunc(served)), issuer.Authorization(wxauthguardtest.Token{ExpiresIn: -10 * time.Second})), "200"},
		"expired":                   {ask(guard.Middleware(http.HandlerFunc(served)), issuer.Authorization(wxauthguardtest.Token{ExpiresIn: -time.Minute})), `401 token_expired Bearer error="invalid_token"`},
		"a website's":               {ask(guard.Middleware(http.HandlerFunc(served)), issuer.Authorization(wxauthguardtest.Token{Scope: "openid"})), `403 insufficient_scope Bearer error="insufficient_scope"`},
		"without the roles":         {ask(staff, issuer.Authorization(wxauthguardtest.Token{Roles: []string{"staff"}})), "403 insufficient_role"},
		"with the roles":            {ask(staff, issuer.Authorization(wxauthguardtest.Token{Roles: []string{"clerk", "staff"}})), "200"},
		"a guest":                   {ask(guard.Optional().Middleware(http.HandlerFunc(served))), "204"},
		"a guest with a wrong one":  {ask(guard.Optional().Middleware(http.HandlerFunc(served)), "Bearer x"), refused},
		"a guest without the roles": {ask(guard.Optional().Middleware(http.HandlerFunc(served), "staff")), "401 missing_token Bearer"},
	} {
		if test.given != test.expected {
			t.Errorf("%s: %s", name, test.given)
		}
	}
}

func TestAGuardThatIsToldSoAdmitsWebsites(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	website := issuer.Authorization(wxauthguardtest.Token{Scope: "openid  profile", AppID: "wx1"})
	user, err := wxauthguard.New(issuer.URL, wxauthguard.Websites()).Verify(context.Background(), website)
	if err != nil || fmt.Sprintf("%v %v %v", user.Scope, user.AppID, user.ClientID) != "[openid profile] wx1 shop" {
		t.Fatal(user, err)
	}
	resource := "https://mcp.example.com/mcp"
	token := wxauthguardtest.Token{Audience: resource, Scope: "orders:read"}
	if _, err := wxauthguard.New(issuer.URL, wxauthguard.Audience(resource)).Verify(context.Background(), issuer.Authorization(token)); err != nil {
		t.Fatal(err)
	}
}

func TestThreeKindsOfRefusalsAreTold(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	guard := wxauthguard.New(issuer.URL)
	kinds := []error{wxauthguard.ErrRefused, wxauthguard.ErrForbidden, wxauthguard.ErrUnavailable}
	verify := func(expected error, guard *wxauthguard.Guard, authorization string, roles ...string) {
		t.Helper()
		_, err := guard.Verify(context.Background(), authorization, roles...)
		for _, kind := range kinds {
			if errors.Is(err, kind) != (kind == expected) {
				t.Error(err)
			}
		}
	}
	good := issuer.Authorization(wxauthguardtest.Token{})
	end := issuer.Away()
	verify(wxauthguard.ErrUnavailable, guard, good) // it has read no keys yet
	end()
	guard = wxauthguard.New(issuer.URL)
	verify(nil, guard, good)
	verify(wxauthguard.ErrRefused, guard, "")
	verify(wxauthguard.ErrRefused, guard, good+"x")
	verify(wxauthguard.ErrForbidden, guard, good, "staff")
	verify(wxauthguard.ErrForbidden, guard, issuer.Authorization(wxauthguardtest.Token{Scope: "openid"}))
	issuer.Away()
	verify(nil, guard, good)
	verify(wxauthguard.ErrUnavailable, guard.Current(), good)
}

func TestARefusalIsAProblemInTheLanguageOfItsReader(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	guard := wxauthguard.New(issuer.URL)
	_, err := guard.Verify(context.Background(), "")
	for language, title := range map[string]string{
		"": "Please log in.", "de": "Please log in.", "zh-CN,zh;q=0.9,en;q=0.8": "请先登录。", "zh_CN": "请先登录。",
		"en;q=0.9, zh": "请先登录。", "zh;q=0.1, en;q=0.2": "Please log in.", "zh;q=0": "Please log in.",
	} {
		status, header, body := wxauthguard.Problem(err, language)
		var problem map[string]any
		json.Unmarshal(body, &problem)
		if status != 401 || problem["title"] != title || problem["code"] != "missing_token" || header.Get("WWW-Authenticate") != "Bearer" {
			t.Error(language, status, string(body))
		}
	}
	if status, _, body := wxauthguard.Problem(errors.New("a password"), ""); status != 500 || strings.Contains(string(body), "password") {
		t.Error(status, string(body))
	}
	request, answer := httptest.NewRequest("GET", "/orders", nil), httptest.NewRecorder()
	request.Header.Set("User-Agent", "MicroMessenger/8.0 Language/zh_CN")
	request.Header.Set("X-Request-ID", "r-1")
	guard.Middleware(http.HandlerFunc(served)).ServeHTTP(answer, request)
	if body := answer.Body.String(); !strings.Contains(body, "请先登录。") || !strings.Contains(body, `"request_id":"r-1"`) {
		t.Error(body)
	}
}

func TestAProjectWritesItsOwnEnvelope(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	guard := wxauthguard.New(issuer.URL, wxauthguard.Refusals(func(w http.ResponseWriter, r *http.Request, refused *wxauthguard.Refusal) {
		fmt.Fprintf(w, `{"errno": 501, "errmsg": %q}`, refused.Title("zh"))
	}))
	answer := httptest.NewRecorder()
	guard.Middleware(http.HandlerFunc(served)).ServeHTTP(answer, httptest.NewRequest("GET", "/orders", nil))
	if answer.Code != 200 || answer.Body.String() != `{"errno": 501, "errmsg": "请先登录。"}` {
		t.Fatal(answer)
	}
}

func TestABanASignOutAndARoleCountAtOnceWhereWxauthIsAsked(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	guard := wxauthguard.New(issuer.URL)
	verify := func(authorization string, roles ...string) string {
		user, err := guard.Current().Verify(context.Background(), authorization, roles...)
		if err != nil {
			return err.(*wxauthguard.Refusal).Code
		}
		return fmt.Sprint(user.IsCurrent)
	}
	alice := issuer.Authorization(wxauthguardtest.Token{Roles: []string{"clerk"}})
	robert := issuer.Authorization(wxauthguardtest.Token{UserID: bob, SessionID: bob})
	expect := func(given, expected string) {
		t.Helper()
		if given != expected {
			t.Error(given)
		}
	}
	expect(verify(alice, "clerk"), "true")
	issuer.SetRoles(wxauthguardtest.UserID, "staff")
	expect(verify(alice, "clerk"), "insufficient_role")
	expect(verify(alice, "staff"), "true")
	issuer.Ban(wxauthguardtest.UserID)
	expect(verify(alice), "session_revoked")
	expect(verify(robert), "true")
	issuer.EndSession(bob)
	expect(verify(robert), "session_revoked")
	expect(verify("Bearer x"), "invalid_token")
}

func TestAnOutageAdmitsATokenIfTheGuardIsToldSo(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	alice := issuer.Authorization(wxauthguardtest.Token{})
	guard := wxauthguard.New(issuer.URL, wxauthguard.OrOffline())
	if user, err := guard.Current().Verify(context.Background(), alice); err != nil || !user.IsCurrent {
		t.Fatal(user, err)
	}
	end := issuer.Away()
	for n := 0; n < 2; n++ {
		if user, err := guard.Current().Verify(context.Background(), alice); err != nil || user.IsCurrent {
			t.Fatal(user, err)
		}
	}
	end()
	issuer.Ban(wxauthguardtest.UserID)
	for !errors.Is(verified(guard.Current(), alice), wxauthguard.ErrRefused) {
		time.Sleep(10 * time.Millisecond) // the last finding counts for a second
	}
}

func verified(guard *wxauthguard.Guard, authorization string) error {
	_, err := guard.Verify(context.Background(), authorization)
	return err
}

func TestACallerThatHasLeftIsNoOutage(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	guard := wxauthguard.New(issuer.URL, wxauthguard.OrOffline())
	alice := issuer.Authorization(wxauthguardtest.Token{})
	if err := verified(guard, alice); err != nil {
		t.Fatal(err)
	}
	left, leave := context.WithCancel(context.Background())
	leave()
	if _, err := guard.Current().Verify(left, alice); !errors.Is(err, wxauthguard.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestAnIssuerThatCannotBeUsedIsAMistakeAtOnce(t *testing.T) {
	for _, issuer := range []string{
		"", "auth.example.com", "http://auth.example.com", "https://auth.example.com/", "https://a@auth.example.com",
		"https://auth.example.com?x", "http://127.0.0.1.example.com", "ftp://auth.example.com",
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error(issuer)
				}
			}()
			wxauthguard.New(issuer)
		}()
	}
}

func BenchmarkVerify(b *testing.B) {
	issuer := wxauthguardtest.NewIssuer(b)
	guard, alice := wxauthguard.New(issuer.URL), issuer.Authorization(wxauthguardtest.Token{})
	for n := 0; n < b.N; n++ {
		if err := verified(guard, alice); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTheLogTellsOnceAMinuteWhyTokensAreRefusedAndThatWxauthIsAway(t *testing.T) {
	issuer, other := wxauthguardtest.NewIssuer(t), wxauthguardtest.NewIssuer(t)
	var written bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&written, nil))
	guard := wxauthguard.New(issuer.URL, wxauthguard.Logger(logger), wxauthguard.OrOffline())
	verify := func(guard *wxauthguard.Guard, authorization string) (*wxauthguard.User, error) {
		return guard.Verify(context.Background(), authorization)
	}
	for range []int{1, 2} {
		verify(guard, issuer.Authorization(wxauthguardtest.Token{Audience: "shop"}))
		verify(guard.Optional(), issuer.Authorization(wxauthguardtest.Token{ExpiresIn: -time.Hour}))
		verify(guard, other.Authorization(wxauthguardtest.Token{Claims: map[string]any{"iss": issuer.URL}}))
		verify(guard, "Bearer x")
	}
	issuer.Away()
	if user, err := verify(guard.Current(), issuer.Authorization(wxauthguardtest.Token{})); err != nil || user.IsCurrent {
		t.Fatal(user, err)
	}
	var said []string
	for _, line := range regexp.MustCompile(`msg="(.*)"\n`).FindAllStringSubmatch(written.String(), -1) {
		said = append(said, regexp.MustCompile(`\d+ s |\\"`).ReplaceAllString(strings.ReplaceAll(line[1], issuer.URL, "ISSUER"), ""))
	}
	if expected := []string{
		"a token was refused: aud is shop, this guard expects wxauth",
		"a token was refused: expired ago by this machine's clock",
		"a token was refused: its signature does not fit the key test of ISSUER",
		"a token could not be verified at once: wxauth can't be asked about the session: the connection ended without a response",
	}; !slices.Equal(said, expected) {
		t.Error(strings.Join(said, "\n"))
	}
}
