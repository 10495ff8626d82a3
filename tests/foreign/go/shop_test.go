package shop

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	_ "example.com/shop/instrumented"
	"github.com/gin-gonic/gin"
	kratoshttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/gofiber/fiber/v2"
	"github.com/labstack/echo/v4"
	"github.com/wxauth/wxauth/clients/go/wxauthguard"
	"github.com/wxauth/wxauth/clients/go/wxauthguardtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// tries returns what each caller of a route for clerks gets.
func tries(issuer *wxauthguardtest.Issuer) map[int][]string {
	clerk := issuer.Authorization(wxauthguardtest.Token{OpenID: "o1", Roles: []string{"clerk"}})
	return map[int][]string{
		200: {clerk}, 401: {"Bearer x"}, 403: {issuer.Authorization(wxauthguardtest.Token{})},
		499: {}, 498: {clerk, clerk}, // no header, and two headers
	}
}

func judge(t *testing.T, ask func(headers []string) (int, string), issuer *wxauthguardtest.Issuer) {
	t.Helper()
	for expected, headers := range tries(issuer) {
		status, body := ask(headers)
		if expected == 200 && body != "o1" {
			t.Error(body)
		}
		if isRefused := status == 401 || status == 400; status != expected && !(expected > 490 && isRefused) {
			t.Error(expected, status, body)
		}
	}
}

func handled(handler http.Handler) func(headers []string) (int, string) {
	return func(headers []string) (int, string) {
		request, answer := httptest.NewRequest("GET", "/orders", nil), httptest.NewRecorder()
		request.Header["Authorization"] = headers
		handler.ServeHTTP(answer, request)
		return answer.Code, answer.Body.String()
	}
}

func TestGin(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.GET("/orders", GuardGin(wxauthguard.New(issuer.URL), "clerk"), func(c *gin.Context) {
		c.String(200, wxauthguard.UserFrom(c.Request.Context()).OpenID)
	})
	judge(t, handled(engine), issuer)
}

func TestEcho(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	server := echo.New()
	server.GET("/orders", func(c echo.Context) error {
		return c.String(200, wxauthguard.UserFrom(c.Request().Context()).OpenID)
	}, GuardEcho(wxauthguard.New(issuer.URL), "clerk"))
	judge(t, handled(server), issuer)
}

func TestFiber(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	app := fiber.New()
	app.Get("/orders", GuardFiber(wxauthguard.New(issuer.URL), "clerk"), func(c *fiber.Ctx) error {
		return c.SendString(wxauthguard.UserFrom(c.UserContext()).OpenID)
	})
	judge(t, func(headers []string) (int, string) {
		request := httptest.NewRequest("GET", "/orders", nil)
		request.Header["Authorization"] = headers
		answer, err := app.Test(request)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 2)
		answer.Body.Read(body)
		return answer.StatusCode, string(body)
	}, issuer)
	request := httptest.NewRequest("GET", "/orders", nil)
	request.Header.Set("User-Agent", "MicroMessenger/8.0.44") // wx.request sends no Accept-Language header
	answer, err := app.Test(request)
	if err != nil || answer.Header.Get("Content-Language") != "zh-CN" {
		t.Error(answer, err)
	}
}

func TestKratos(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	server := kratoshttp.NewServer(kratoshttp.Middleware(GuardKratos(wxauthguard.New(issuer.URL), "clerk")))
	server.Route("/").GET("/orders", func(c kratoshttp.Context) error {
		kratoshttp.SetOperation(c, "/orders")
		handler := c.Middleware(func(ctx context.Context, _ any) (any, error) {
			return wxauthguard.UserFrom(ctx).OpenID, nil
		})
		openID, err := handler(c, nil)
		if err != nil {
			return err
		}
		return c.String(200, openID.(string))
	})
	judge(t, handled(server), issuer)
}

type healthy struct {
	grpc_health_v1.UnimplementedHealthServer
	openID string
}

func (h *healthy) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.openID = wxauthguard.UserFrom(ctx).OpenID
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func (h *healthy) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	h.openID = wxauthguard.UserFrom(stream.Context()).OpenID
	return stream.Send(&grpc_health_v1.HealthCheckResponse{})
}

func TestGRPC(t *testing.T) {
	issuer := wxauthguardtest.NewIssuer(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	service := &healthy{}
	guard := wxauthguard.New(issuer.URL)
	server := grpc.NewServer(
		grpc.UnaryInterceptor(GuardGRPC(guard, "clerk")), grpc.StreamInterceptor(GuardGRPCStream(guard, "clerk")),
	)
	grpc_health_v1.RegisterHealthServer(server, service)
	go server.Serve(listener)
	defer server.Stop()
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := grpc_health_v1.NewHealthClient(connection)
	calls := map[string]func(ctx context.Context) error{
		"unary": func(ctx context.Context) error {
			_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			return err
		},
		"stream": func(ctx context.Context) error {
			stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			judge(t, func(headers []string) (int, string) {
				ctx := context.Background()
				for _, header := range headers {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
				}
				statuses := map[codes.Code]int{codes.OK: 200, codes.Unauthenticated: 401, codes.PermissionDenied: 403}
				return statuses[status.Code(call(ctx))], service.openID
			}, issuer)
		})
	}
}
