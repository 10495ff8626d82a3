package wxauth

// Tests the Go code of examples/go while wxauth hangs and attackers send tokens with unknown keys.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func named(kid string) *jwt.Token {
	return &jwt.Token{Header: map[string]interface{}{"kid": kid}}
}

// publisher publishes the key "known". While isHanging is 1, it hangs until the test ends.
func publisher(t *testing.T, isHanging, readings *int32) *Keys {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		atomic.AddInt32(readings, 1)
		if atomic.LoadInt32(isHanging) == 1 {
			<-ended
		}
		x, y := make([]byte, 32), make([]byte, 32)
		fmt.Fprintf(w, `{"keys": [{"kid": "known", "kty": "EC", "crv": "P-256", "x": %q, "y": %q}]}`,
			base64.RawURLEncoding.EncodeToString(key.X.FillBytes(x)), base64.RawURLEncoding.EncodeToString(key.Y.FillBytes(y)))
	}))
	t.Cleanup(func() {
		close(ended)
		server.Close()
	})
	return &Keys{URL: server.URL}
}

func TestUnknownKeysDoNotDelayAKnownOneWhileWxauthHangs(t *testing.T) {
	var isHanging, readings int32
	keys := publisher(t, &isHanging, &readings)
	if _, err := keys.Find(named("known")); err != nil {
		t.Fatal(err)
	}
	atomic.StoreInt32(&isHanging, 1)
	for _, age := range []time.Duration{0, 6 * time.Minute, 11 * time.Minute, 23 * time.Hour} {
		keys.mutex.Lock()
		keys.readAt, keys.nextAt = time.Now().Add(-age), time.Time{}
		keys.mutex.Unlock()
		for n := 0; n < 8; n++ {
			go keys.Find(named(fmt.Sprint("unknown-", n)))
		}
		for atomic.LoadInt32(&readings) < 2 {
			time.Sleep(time.Millisecond)
		}
		begun := time.Now()
		for n := 0; n < 100; n++ {
			if _, err := keys.Find(named("known")); err != nil {
				t.Fatal(err)
			}
			if _, err := keys.Find(named("unknown")); (err == errNoKeys) != (age > freshFor) {
				t.Fatal(age, err)
			}
		}
		if time.Since(begun) > 2*time.Second {
			t.Fatalf("known keys of age %v have waited for %v", age, time.Since(begun))
		}
	}
	if readings != 2 {
		t.Fatalf("%d readings", readings)
	}
}

func TestUnknownKeysCauseOneReadingAndWhatFailsBacksOff(t *testing.T) {
	var isHanging, readings int32
	keys := publisher(t, &isHanging, &readings)
	for n := 0; n < 100; n++ {
		if _, err := keys.Find(named(fmt.Sprint("unknown-", n))); err == nil || err == errNoKeys {
			t.Fatal(err)
		}
	}
	if readings != 1 {
		t.Fatalf("%d readings", readings)
	}
	keys.URL = "http://127.0.0.1:1"
	for _, pause := range []time.Duration{10, 20, 40, 60, 60} {
		keys.nextAt = time.Time{}
		keys.Find(named("unknown"))
		if left := time.Until(keys.nextAt); left > pause*time.Second || left < (pause-5)*time.Second {
			t.Fatalf("the next reading is in %v, not in %v s", left, int(pause))
		}
	}
	if _, err := keys.Find(named("known")); err != nil {
		t.Fatal(err)
	}
	keys.readAt = time.Now().Add(-25 * time.Hour)
	if _, err := keys.Find(named("known")); err != errNoKeys {
		t.Fatal("keys of yesterday are used")
	}
}

func TestWebsitesAreAdmittedOnlyByAGuardThatIsToldSo(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	guard := Guard{Issuer: "https://auth.test", Audience: "wxauth", Keys: func(*jwt.Token) (any, error) {
		return &key.PublicKey, nil
	}}
	for _, scope := range []any{"openid", "", nil, 7, []string{"openid"}} {
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
			"iss": guard.Issuer, "aud": guard.Audience, "sub": "1", "jti": "1", "client_id": "shop", "openid": "o1", "sid": "1",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "scope": scope,
		})
		token.Header["typ"] = "at+jwt"
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		request := httptest.NewRequest("GET", "/orders", nil)
		request.Header.Set("Authorization", "Bearer "+signed)
		if _, refusal := guard.Caller(request); refusal == nil || refusal.Status != 403 || refusal.Code != "insufficient_scope" {
			t.Fatal(scope, refusal)
		}
		both := guard
		both.Websites = true
		user, refusal := both.Caller(request)
		if refusal != nil || user.Scope == nil || scope == "openid" && *user.Scope != "openid" {
			t.Fatal(scope, refusal, user)
		}
	}
}

func TestARequestWithTwoTokensIsRefused(t *testing.T) {
	guard := Guard{Keys: func(*jwt.Token) (any, error) { return nil, errNoKeys }}
	for status, headers := range map[int][]string{400: {"Bearer a", "Bearer b"}, 401: {"Bearer  "}, 503: {"Bearer   eyJhbGciOiJFUzI1NiJ9.e30.e30 "}} {
		request := httptest.NewRequest("GET", "/orders", nil)
		request.Header["Authorization"] = headers
		if _, refusal := guard.Caller(request); refusal.Status != status {
			t.Fatal(headers, refusal)
		}
	}
}
