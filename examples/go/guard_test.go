package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/orders/wxauth"
	"github.com/golang-jwt/jwt/v5"
)

// testGuard returns a guard that needs no wxauth, and a function that makes tokens for this guard.
func testGuard(t *testing.T) (wxauth.Guard, func(openid string, roles ...string) string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	guard := wxauth.Guard{Issuer: "https://auth.test", Audience: "wxauth", Keys: func(*jwt.Token) (any, error) {
		return &key.PublicKey, nil
	}}
	return guard, func(openid string, roles ...string) string {
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
			"iss": guard.Issuer, "aud": guard.Audience, "jti": "1", "client_id": "wxtest", "openid": openid, "roles": roles,
			"sub": "01900000-0000-7000-8000-000000000001", "sid": "01900000-0000-7000-8000-000000000002",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		})
		token.Header["typ"] = "at+jwt"
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
}

func TestOrdersAreTheCallersOwn(t *testing.T) {
	guard, token := testGuard(t)
	ask := func(path, token string) *httptest.ResponseRecorder {
		request, answer := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
		request.Header.Set("Authorization", "Bearer "+token)
		Orders(guard).ServeHTTP(answer, request)
		return answer
	}
	if answer := ask("/orders", token("o1")); !strings.Contains(answer.Body.String(), `"openid":"o1"`) {
		t.Fatal(answer)
	}
	for status, token := range map[int]string{200: token("o1", "staff"), 403: token("o1"), 401: "no"} {
		if answer := ask("/staff", token); answer.Code != status {
			t.Fatal(status, answer)
		}
	}
}
