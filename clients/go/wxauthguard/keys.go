package wxauthguard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"sync"
	"time"
)

const (
	keysPath     = "/.well-known/jwks.json"
	freshFor     = 5 * time.Minute
	keptFor      = 24 * time.Hour // while wxauth is unavailable
	readTimeout  = 5 * time.Second
	maxDocument  = 256 * 1024 // bytes
	maxKeyID     = 256        // characters
	shortPause   = 2 * time.Second
	regularPause = 10 * time.Second
	longestPause = time.Minute
)

// keys reads the public keys that wxauth publishes, and keeps them in memory.
type keys struct {
	url      string
	warn     func(string)
	mutex    sync.Mutex
	keys     map[string]*ecdsa.PublicKey
	readAt   time.Time
	ended    chan struct{} // closed when the current read ends; nil if no read is in progress
	nextAt   time.Time     // no read begins before this time
	failures int           // the number of failed reads since the last success
	failure  string
}

// find returns the key with this id, or nil if wxauth has no such key.
//
// If the key is unknown, or the keys are ten minutes old, the request that starts a read waits for it. Other requests
// use the keys in memory. Otherwise, an attacker could block the service with unknown keys while wxauth does not respond.
// Only the very first read makes all requests wait. wxauth publishes a key at least six minutes before it signs, so only
// keys older than five minutes can lack one that signs.
func (k *keys) find(ctx context.Context, kid string) (*ecdsa.PublicKey, *Refusal) {
	k.mutex.Lock()
	key, age := k.keys[kid], time.Since(k.readAt)
	isBegun := k.ended == nil && (key == nil || age > freshFor) && time.Now().After(k.nextAt)
	if isBegun {
		k.ended = make(chan struct{})
		go k.read()
	}
	ended, isFirst := k.ended, k.keys == nil && k.failures == 0
	k.mutex.Unlock()
	if ended != nil && (isFirst || isBegun && (key == nil || age > 2*freshFor)) {
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, refusal("keys_unavailable", "the request ended before the issuer's keys were read")
		}
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	key, age = k.keys[kid], time.Since(k.readAt)
	if age > keptFor || key == nil && age > freshFor {
		return nil, refusal("keys_unavailable", "the issuer's keys cannot be read: "+k.failure)
	}
	return key, nil
}

func (k *keys) read() {
	found, err := readKeys(k.url)
	k.mutex.Lock()
	defer k.mutex.Unlock()
	pause := regularPause
	if err != nil {
		k.failure = causeOf(err)
		k.warn("the keys of wxauth could not be read: " + k.failure)
		if k.keys == nil {
			pause = shortPause
		}
		pause <<= k.failures
		if pause < longestPause {
			k.failures++
		} else {
			pause = longestPause
		}
	} else {
		k.keys, k.readAt, k.failures = found, time.Now(), 0
	}
	k.nextAt = time.Now().Add(pause)
	close(k.ended)
	k.ended = nil
}

func readKeys(url string) (map[string]*ecdsa.PublicKey, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, known(fmt.Sprintf("status %d", answer.StatusCode))
	}
	document, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(document) > maxDocument {
		return nil, known("the document is too large")
	}
	set, err := jsonObject(document, maxContainersOfKeys)
	if err != nil {
		return nil, known("the document is not a JSON object")
	}
	list, _ := set["keys"].([]any)
	found := keysIn(list)
	if len(found) == 0 { // the response might come from a gateway that returns 200 during maintenance
		return nil, known("there is no usable key")
	}
	return found, nil
}

// keysIn returns the usable keys by their id. If two have the same id, neither is used.
func keysIn(list []any) map[string]*ecdsa.PublicKey {
	found, counts := map[string]*ecdsa.PublicKey{}, map[string]int{}
	for _, member := range list {
		if jwk, isObject := member.(map[string]any); isObject {
			if kid, key := keyOf(jwk); key != nil {
				found[kid] = key
				counts[kid]++
			}
		}
	}
	for kid, count := range counts {
		if count > 1 {
			delete(found, kid)
		}
	}
	return found
}

// keyOf returns the key in a JWK and its id, or nil if ES256 cannot use the key.
func keyOf(jwk map[string]any) (string, *ecdsa.PublicKey) {
	is := func(name, value string) bool {
		given, isSet := jwk[name]
		return given == value || !isSet && (name == "use" || name == "alg")
	}
	kid, _ := jwk["kid"].(string)
	if kid == "" || len(kid) > maxKeyID || !is("kty", "EC") || !is("crv", "P-256") || !is("use", "sig") || !is("alg", "ES256") {
		return "", nil
	}
	var coordinates [2]*big.Int
	for n, name := range []string{"x", "y"} {
		text, _ := jwk[name].(string)
		decoded, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(decoded) != 32 || len(text) != 43 {
			return "", nil
		}
		coordinates[n] = new(big.Int).SetBytes(decoded)
	}
	key := &ecdsa.PublicKey{Curve: elliptic.P256(), X: coordinates[0], Y: coordinates[1]}
	if _, err := key.ECDH(); err != nil { // the point is not on the curve
		return "", nil
	}
	return kid, key
}

// known is the reason of a failure in words of this package, which a response may contain.
type known string

func (k known) Error() string { return string(k) }

// causeOf returns why a request has failed. The text names no host, because responses contain the text.
func causeOf(err error) string {
	var ours known
	if errors.As(err, &ours) {
		return string(ours)
	}
	if kind := failureOf(err); kind != "" {
		return kind
	}
	return "the request failed"
}
