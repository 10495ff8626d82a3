// A service in Go to compare wxauth with. It uses net/http, pgx and ES256, and does as little work as the floor. It has
// no sessions and no refresh token, and neither encrypts nor logs anything. With WORK=whole, it does the same work as
// wxauth (whole.go). With WORK=tables, it does this work on the tables of wxauth, which must exist already.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	ttl      = 900
	issuer   = "http://127.0.0.1:8000"
	audience = "go"

	table = `
CREATE TABLE IF NOT EXISTS users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    openid text NOT NULL UNIQUE,
    session_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_login_at timestamptz NOT NULL DEFAULT now()
)`
	upsert = `
INSERT INTO users (openid, session_key) VALUES ($1, $2)
ON CONFLICT (openid) DO UPDATE SET session_key = excluded.session_key, last_login_at = now()
RETURNING id::text`
	selectUser = "SELECT id::text, openid, created_at, last_login_at FROM users WHERE id = $1"
)

var (
	errInvalid = errors.New("invalid token")
	base64url  = base64.RawURLEncoding
	jwtHeader  = base64url.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`))
)

type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

type wechatUser struct {
	OpenID     string `json:"openid"`
	UnionID    string `json:"unionid"`
	SessionKey string `json:"session_key"`
	ErrCode    int    `json:"errcode"`
}

type user struct {
	ID          string    `json:"id"`
	OpenID      string    `json:"openid"`
	CreatedAt   time.Time `json:"created_at"`
	LastLoginAt time.Time `json:"last_login_at"`
}

type service struct {
	pool   *pgxpool.Pool
	client *http.Client
	key    *ecdsa.PrivateKey
}

// exchange asks WeChat which user a code belongs to. If that fails, exchange has already written the response.
func (s *service) exchange(w http.ResponseWriter, r *http.Request) (wechat wechatUser, ok bool) {
	var body struct {
		Code string `json:"code"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64*1024)).Decode(&body); err != nil || body.Code == "" {
		http.Error(w, "invalid request", http.StatusBadRequest)
		return wechat, false
	}
	query := url.Values{
		"appid":      {os.Getenv("APP_ID")},
		"secret":     {os.Getenv("APP_SECRET")},
		"js_code":    {body.Code},
		"grant_type": {"authorization_code"},
	}
	target := os.Getenv("WECHAT_BASE_URL") + "/sns/jscode2session?" + query.Encode()
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target, nil)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return wechat, false
	}
	answer, err := s.client.Do(request)
	if err != nil {
		http.Error(w, "WeChat does not answer", http.StatusServiceUnavailable)
		return wechat, false
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&wechat); err != nil || wechat.ErrCode != 0 {
		http.Error(w, "WeChat refused the code", http.StatusBadRequest)
		return wechat, false
	}
	return wechat, true
}

func (s *service) logIn(w http.ResponseWriter, r *http.Request) {
	wechat, ok := s.exchange(w, r)
	if !ok {
		return
	}
	var id string
	if err := s.pool.QueryRow(r.Context(), upsert, wechat.OpenID, wechat.SessionKey).Scan(&id); err != nil {
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	now := time.Now().Unix()
	token, err := s.sign(claims{issuer, audience, id, now, now + ttl})
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	writeJSON(w, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": ttl})
}

func (s *service) readMe(w http.ResponseWriter, r *http.Request) {
	var said claims
	if err := s.verify(bearer(r), &said); err != nil || !said.areGood() {
		http.Error(w, "invalid token", http.StatusUnauthorized)
		return
	}
	var found user
	row := s.pool.QueryRow(r.Context(), selectUser, said.Subject)
	if err := row.Scan(&found.ID, &found.OpenID, &found.CreatedAt, &found.LastLoginAt); err != nil {
		http.Error(w, "no such user", http.StatusUnauthorized)
		return
	}
	writeJSON(w, found)
}

func bearer(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func (s *service) sign(said any) (string, error) {
	payload, err := json.Marshal(said)
	if err != nil {
		return "", err
	}
	signed := jwtHeader + "." + base64url.EncodeToString(payload)
	digest := sha256.Sum256([]byte(signed))
	r, t, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	t.FillBytes(signature[32:])
	return signed + "." + base64url.EncodeToString(signature), nil
}

// verify checks a token's signature and returns its claims.
func (s *service) verify(token string, said any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] != jwtHeader {
		return errInvalid
	}
	signature, err := base64url.DecodeString(parts[2])
	if err != nil || len(signature) != 64 {
		return errInvalid
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, t := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(&s.key.PublicKey, digest[:], r, t) {
		return errInvalid
	}
	payload, err := base64url.DecodeString(parts[1])
	if err != nil {
		return errInvalid
	}
	return json.Unmarshal(payload, said)
}

func (c *claims) areGood() bool {
	return c.Issuer == issuer && c.Audience == audience && c.Expires > time.Now().Unix()
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		log.Print(err)
	}
}

func only(method string, handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		handler(w, r)
	}
}

func main() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	work := os.Getenv("WORK")
	tables := map[string]string{"": table, "whole": wholeTables}[work]
	if _, err := pool.Exec(context.Background(), tables); err != nil {
		log.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256}
	s := &service{pool: pool, client: &http.Client{Transport: transport, Timeout: 5 * time.Second}, key: key}
	logIn, readMe := s.logIn, s.readMe
	if work != "" {
		whole := newWhole(s)
		logIn, readMe = whole.logIn, whole.readMe
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/login", only(http.MethodPost, logIn))
	mux.HandleFunc("/v1/me", only(http.MethodGet, readMe))
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
