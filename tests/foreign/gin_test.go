package main

// Tests the Gin middleware in the guide.

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"example.com/orders/wxauth"
	"github.com/gin-gonic/gin"
)

func TestGinKnowsItsCallerAndRefusesOthersAsTheProjectAnswers(t *testing.T) {
	guard, token := testGuard(t)
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(Buyer(guard))
	engine.GET("/orders", func(c *gin.Context) {
		c.String(200, c.MustGet("wxauth").(*wxauth.User).OpenID)
	})
	for header, expected := range map[string]string{
		"Bearer " + token("o1"): "200 o1",
		"":                      `401 {"code":401,"data":null,"message":"missing_token"}`,
		"Bearer rubbish":        `401 {"code":401,"data":null,"message":"invalid_token"}`,
	} {
		request, answer := httptest.NewRequest("GET", "/orders", nil), httptest.NewRecorder()
		request.Header.Set("Authorization", header)
		engine.ServeHTTP(answer, request)
		if given := fmt.Sprint(answer.Code, " ", answer.Body); given != expected {
			t.Fatal(header, given)
		}
	}
}
