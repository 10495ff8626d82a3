package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wxauth/wxauth/clients/go/wxauthguard"
	"github.com/wxauth/wxauth/clients/go/wxauthguardtest"
)

func TestOrdersAreTheCallersOwn(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	orders := Orders(wxauthguard.New(issuer.URL))
	ask := func(method, path, authorization string) *httptest.ResponseRecorder {
		request, answer := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
		request.Header.Set("Authorization", authorization)
		orders.ServeHTTP(answer, request)
		return answer
	}
	alice := issuer.Authorization(wxauthguardtest.Token{OpenID: "o1"})
	if answer := ask("GET", "/orders", alice); !strings.Contains(answer.Body.String(), `"openid":"o1"`) {
		t.Fatal(answer)
	}
	staff := issuer.Authorization(wxauthguardtest.Token{Roles: []string{"staff"}})
	for status, authorization := range map[int]string{200: staff, 403: alice, 401: "Bearer no"} {
		if answer := ask("GET", "/staff", authorization); answer.Code != status {
			t.Fatal(status, answer)
		}
	}
	clerk := issuer.Authorization(wxauthguardtest.Token{Roles: []string{"clerk"}})
	if answer := ask("POST", "/refund", clerk); answer.Code != 200 {
		t.Fatal(answer)
	}
	issuer.Ban(wxauthguardtest.UserID)
	if answer := ask("POST", "/refund", clerk); answer.Code != 401 {
		t.Fatal(answer)
	}
}
