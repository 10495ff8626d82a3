package wxauthguard

import (
	"context"
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
)

// publisher publishes the key "known". While isHanging is true, it hangs until the test ends.
func publisher(t *testing.T, isHanging *atomic.Bool, readings *atomic.Int32) *keys {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		readings.Add(1)
		if isHanging.Load() {
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
	return &keys{url: server.URL, warn: func(string) {}}
}

func (k *keys) codeOf(kid string) string {
	key, refused := k.find(context.Background(), kid)
	switch {
	case refused != nil:
		return refused.Code
	case key == nil:
		return "unknown"
	}
	return "known"
}

func TestUnknownKeysDoNotDelayAKnownOneWhileWxauthHangs(t *testing.T) {
	var isHanging atomic.Bool
	var readings atomic.Int32
	keys := publisher(t, &isHanging, &readings)
	if found := keys.codeOf("known"); found != "known" {
		t.Fatal(found)
	}
	isHanging.Store(true)
	for _, age := range []time.Duration{0, 6 * time.Minute, 11 * time.Minute, 23 * time.Hour} {
		keys.mutex.Lock()
		keys.readAt, keys.nextAt = time.Now().Add(-age), time.Time{}
		keys.mutex.Unlock()
		for n := 0; n < 8; n++ {
			go keys.codeOf(fmt.Sprint("unknown-", n))
		}
		for readings.Load() < 2 {
			time.Sleep(time.Millisecond)
		}
		begun := time.Now()
		for n := 0; n < 100; n++ {
			if found := keys.codeOf("known"); found != "known" {
				t.Fatal(found)
			}
			if found := keys.codeOf("unknown"); (found == "keys_unavailable") != (age > freshFor) {
				t.Fatal(age, found)
			}
		}
		if time.Since(begun) > 2*time.Second {
			t.Fatalf("known keys of age %v have waited for %v", age, time.Since(begun))
		}
	}
	if readings.Load() != 2 {
		t.Fatalf("%d readings", readings.Load())
	}
}

func TestUnknownKeysCauseOneReadingAndWhatFailsBacksOff(t *testing.T) {
	var isHanging atomic.Bool
	var readings atomic.Int32
	keys := publisher(t, &isHanging, &readings)
	for n := 0; n < 100; n++ {
		if found := keys.codeOf(fmt.Sprint("unknown-", n)); found != "unknown" {
			t.Fatal(found)
		}
	}
	if readings.Load() != 1 {
		t.Fatalf("%d readings", readings.Load())
	}
	keys.url = "http://127.0.0.1:1"
	for _, pause := range []time.Duration{10, 20, 40, 60, 60} {
		keys.nextAt = time.Time{}
		keys.codeOf("unknown")
		if left := time.Until(keys.nextAt); left > pause*time.Second || left < (pause-5)*time.Second {
			t.Fatalf("the next reading is in %v, not in %v s", left, int(pause))
		}
	}
	if found := keys.codeOf("known"); found != "known" {
		t.Fatal(found)
	}
	keys.readAt = time.Now().Add(-25 * time.Hour)
	if found := keys.codeOf("known"); found != "keys_unavailable" {
		t.Fatal("keys of yesterday are used")
	}
}

func TestTwoKeysWithOneIDAreBothUnused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{
		"kid": "k", "kty": "EC", "crv": "P-256",
		"x": base64.RawURLEncoding.EncodeToString(key.X.FillBytes(make([]byte, 32))),
		"y": base64.RawURLEncoding.EncodeToString(key.Y.FillBytes(make([]byte, 32))),
	}
	for count, expected := range map[int]int{1: 1, 2: 0, 3: 0} {
		list := []any{}
		for n := 0; n < count; n++ {
			list = append(list, jwk)
		}
		if found := keysIn(list); len(found) != expected {
			t.Fatal(count, found)
		}
	}
}

func TestWhatTwoParsersCouldReadDifferentlyIsNoJSON(t *testing.T) {
	for document, isRead := range map[string]bool{
		`{"a": "\ud83d\ude00", "b": "\\ud800", "A": 1e300}`: true,
		` {"a": [1, {"b": 2}]} `:                            true,
		`{"a": 1, "a": 1}`:                                  false,
		`{"a": {"b": 1, "b": 2}}`:                           false,
		`{"a": 1, "\u0061": 1}`:                             false,
		`{"a": "\ud800"}`:                                   false,
		`{"a": "\udc00\ud800"}`:                             false,
		`{"\ud800": 1}`:                                     false,
		"{\"a\": \"\xff\"}":                                 false,
		"\ufeff{}":                                          false,
		`{"a": 1e400}`:                                      false,
		`{"a": -1e400}`:                                     false,
		`{"a": NaN}`:                                        false,
		`{"a": 01}`:                                         false,
		`{} {}`:                                             false,
		`{}x`:                                               false,
		`{}]`:                                               false,
		`[]`:                                                false,
		`"a"`:                                               false,
		``:                                                  false,
		`{"a": [[[[[]]]]]}`:                                 false,
	} {
		if _, err := jsonObject([]byte(document), 5); (err == nil) != isRead {
			t.Error(document, err)
		}
	}
}
