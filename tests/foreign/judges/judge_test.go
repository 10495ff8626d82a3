package wxauth

// Writes the guard's verdicts on each line from tests/foreign/key_documents.py.

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestJudgeEachLine(t *testing.T) {
	judged, err := os.ReadFile(os.Getenv("JUDGED"))
	if err != nil {
		t.Fatal(err)
	}
	printed := ""
	for _, line := range strings.Split(strings.TrimSpace(string(judged)), "\n") {
		words := strings.Split(line, " ")
		keys := &Keys{URL: words[0]}
		guard := Guard{Issuer: words[0], Audience: "wxauth", Keys: keys.Find}
		status := func(token string) int {
			_, err := guard.Verify(token)
			if errors.Is(err, errNoKeys) {
				return 503
			}
			if err != nil {
				return 401
			}
			return 200
		}
		forgetThePause := func() {
			keys.mutex.Lock()
			keys.nextAt = time.Time{}
			keys.mutex.Unlock()
		}
		printed += fmt.Sprint(status(words[1]), " ")
		forgetThePause()
		if strings.HasSuffix(words[0], "/hanging") {
			printed += fmt.Sprintln(besideStrangers(status, words))
			continue
		}
		printed += fmt.Sprint(status(words[2]), " ")
		forgetThePause()
		printed += fmt.Sprintln(status(words[1]))
	}
	if err := os.WriteFile(os.Getenv("JUDGED")+".out", []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Runs 32 requests with unknown keys, and then a user's request, in 16 workers.
func besideStrangers(status func(string) int, words []string) string {
	tokens, answered := make(chan string), make(chan int, 1)
	for n := 0; n < 16; n++ {
		go func() {
			for token := range tokens {
				if found := status(token); token == words[1] {
					answered <- found
				}
			}
		}()
	}
	for n := 0; n < 32; n++ {
		tokens <- words[2]
	}
	tokens <- words[1]
	user := <-answered
	answer, err := http.Get(words[0] + "/answered")
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	waits, _ := io.ReadAll(answer.Body)
	return fmt.Sprint(user, " ", string(waits))
}
