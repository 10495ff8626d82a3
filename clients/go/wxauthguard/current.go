package wxauthguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	verifyPath = "/v1/verify"
	// A question that waits in this process tells nothing about wxauth. So the wait is limited apart from the question.
	beginTimeout = 500 * time.Millisecond // from the call until the question is sent
	askTimeout   = 2 * time.Second        // from then to the last header
	idleTimeout  = 30 * time.Second       // shorter than the 75 s after which wxauth closes an idle connection
	maxAsked     = 64
	maxWaiting   = 256
	maxProblem   = 16 * 1024 // bytes
	findPause    = time.Second
	findingCount = time.Second            // for which a finding admits tokens without a question
	maxLate      = 500 * time.Millisecond // by which this process may be late before it can tell nothing about wxauth
	beat         = 100 * time.Millisecond
	tooBusy      = "this process is too busy to tell whether wxauth is away"
)

// client keeps as many idle connections as questions can be asked at once, and follows no redirect.
var client = &http.Client{
	Transport: &http.Transport{ // no clone of http.DefaultTransport, because tracers replace that one by another type
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: maxAsked,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // so that a small body cannot become a large one
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// authority is what Current asks about each token.
type authority struct {
	base, query string
	asked       chan struct{} // has a place for each question that is asked
	waiting     chan struct{} // has a place for each question that is asked or waits
	outages     *outages      // nil if an outage admits nobody
}

func newAuthority(base string, orOffline bool, query string) *authority {
	a := &authority{base: base, query: query, asked: make(chan struct{}, maxAsked), waiting: make(chan struct{}, maxAsked+maxWaiting)}
	if orOffline {
		a.outages = &outages{askForKeys: a.whyNotAway}
	}
	return a
}

// ask returns the current roles of the token's user.
func (a *authority) ask(ctx context.Context, token string, user *User) ([]string, *Refusal) {
	if a.outages != nil && a.outages.isCertain() {
		return nil, notAsked("it was away a moment ago", true)
	}
	if refused := a.begin(ctx); refused != nil {
		return nil, refused
	}
	defer func() { <-a.asked; <-a.waiting }()
	began := time.Now()
	if a.outages != nil { // the finding is then there soon after the end of a question without a response
		finding := time.AfterFunc(beginTimeout, func() { a.outages.find() })
		defer finding.Stop()
	}
	answer, err := a.get(ctx, verifyPath+a.query, token)
	if err != nil {
		return nil, a.unavailable(ctx, err, time.Since(began))
	}
	defer answer.Body.Close()
	return currentRoles(answer, user)
}

// begin waits for a free place.
func (a *authority) begin(ctx context.Context) *Refusal {
	called := time.Now()
	select {
	case a.waiting <- struct{}{}:
	default:
		return notAsked("too many requests are waiting", false)
	}
	limit := time.NewTimer(beginTimeout)
	defer limit.Stop()
	select {
	case a.asked <- struct{}{}:
		if time.Since(called) <= beginTimeout {
			return nil
		}
		<-a.asked
	case <-limit.C:
	case <-ctx.Done():
	}
	<-a.waiting
	return notAsked("this process is too busy", false)
}

func (a *authority) get(ctx context.Context, path, token string) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	if err != nil {
		cancel()
		return nil, err
	}
	answer.Body = endingBody{answer.Body, cancel}
	return answer, nil
}

type endingBody struct {
	io.ReadCloser
	cancel func()
}

func (b endingBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func (a *authority) unavailable(ctx context.Context, err error, duration time.Duration) *Refusal {
	reason := causeOf(err)
	if a.outages == nil || ctx.Err() != nil || failureOf(err) == "" {
		return notAsked(reason, false)
	}
	whyNot := tooBusy
	if duration <= askTimeout+maxLate {
		whyNot = a.outages.find()
	}
	if whyNot != "" {
		return notAsked(reason+", but "+whyNot, false)
	}
	return notAsked(reason, true)
}

// whyNotAway asks for the public keys, without anybody's token, and returns why wxauth is not away, or "" if it is.
func (a *authority) whyNotAway() string {
	answer, err := a.get(context.Background(), keysPath, "")
	if err != nil {
		if failureOf(err) != "" {
			return ""
		}
		return "its public keys can't be read: " + causeOf(err)
	}
	answer.Body.Close()
	if isAwayStatus(answer.StatusCode) {
		return ""
	}
	return fmt.Sprintf("it responds to a request for its public keys with status %d", answer.StatusCode)
}

func notAsked(reason string, isOutage bool) *Refusal {
	detail := "wxauth can't be asked about the session: " + reason
	refused := refusal("verification_unavailable", detail)
	refused.logged, refused.isOutage = "a token could not be verified at once: "+detail, isOutage
	return refused
}

func isAwayStatus(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// currentRoles returns the roles in the response of /v1/verify. Nobody gets in by a status that a client can cause.
func currentRoles(answer *http.Response, user *User) ([]string, *Refusal) {
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		// Without its body, a 401 is the end of the session, because no body may turn a refusal into an outage.
		body, _ := io.ReadAll(io.LimitReader(answer.Body, maxProblem))
		if problem, err := jsonObject(body, maxContainersOfToken); err == nil && problem["code"] == "token_expired" {
			return nil, refusal("token_expired", "the token has expired")
		}
		return nil, refusal("session_revoked", "the session has ended")
	case http.StatusForbidden:
		return nil, refusal("insufficient_scope", "wxauth doesn't accept this token here")
	case http.StatusOK:
	default:
		return nil, notAsked(fmt.Sprintf("status %d", answer.StatusCode), isAwayStatus(answer.StatusCode))
	}
	session := answer.Header.Get("X-Auth-Session-ID")
	if answer.Header.Get("X-Auth-User-ID") != user.ID || session != "" && session != user.SessionID {
		return nil, notAsked("its response is not about this session: is there a proxy in between?", false)
	}
	roles := strings.FieldsFunc(answer.Header.Get("X-Auth-Roles"), func(r rune) bool { return r == ',' })
	return roles, nil
}

// failureOf returns how a connection was refused, failed or timed out, or "" if the error is no outage of wxauth, such
// as a wrong certificate or too many open files.
func failureOf(err error) string {
	var name *net.DNSError
	if errors.As(err, &name) {
		if name.IsNotFound || name.IsTimeout {
			return "the host's name could not be resolved"
		}
		return ""
	}
	for _, errno := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.EHOSTUNREACH,
		syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, errno) {
			return "no connection: " + errno.Error()
		}
	}
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection ended without a response"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no response in time"
	}
	return ""
}

// outages is what this process has found out about wxauth being away. All questions share one request for the keys.
type outages struct {
	askForKeys func() string
	mutex      sync.Mutex
	begunAt    time.Time
	awayAt     time.Time
	finding    *finding
}

type finding struct {
	ended  chan struct{}
	whyNot string // may be read after the end
}

// isCertain returns whether wxauth was away a moment ago, so that no question is necessary.
func (o *outages) isCertain() bool {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return time.Since(o.awayAt) <= findingCount
}

// find returns what is found out now or was a moment ago: why wxauth is not away, or "" if it is.
func (o *outages) find() string {
	o.mutex.Lock()
	if current := o.finding; current == nil || current.hasEnded() && time.Since(o.begunAt) >= findPause {
		o.begunAt, o.finding = time.Now(), &finding{ended: make(chan struct{})}
		go o.findOut(o.finding)
	}
	current := o.finding
	o.mutex.Unlock()
	<-current.ended
	return current.whyNot
}

func (f *finding) hasEnded() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// findOut asks for the keys, and measures meanwhile by how much this process is late.
func (o *outages) findOut(current *finding) {
	answered := make(chan string, 1)
	go func() { answered <- o.askForKeys() }()
	var late time.Duration
	measured, isAnswered := time.Now(), false
	for !isAnswered {
		tick := time.NewTimer(beat)
		select {
		case current.whyNot = <-answered:
			isAnswered = true
		case <-tick.C:
		}
		tick.Stop()
		now := time.Now()
		late += max(now.Sub(measured)-beat, 0)
		measured = now
	}
	if late > maxLate {
		current.whyNot = tooBusy
	}
	o.mutex.Lock()
	if current.whyNot == "" {
		o.awayAt = time.Now()
	}
	o.mutex.Unlock()
	close(current.ended)
}
