import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.WxauthUser;

/** The service. All its routes require a valid token. */
public final class Orders {
    private final WxauthGuard guard;

    private Orders(WxauthGuard guard) {
        this.guard = guard;
    }

    public static void main(String[] arguments) throws Exception {
        var environment = System.getenv();
        var issuer = environment.getOrDefault("WXAUTH_ISSUER", "http://127.0.0.1:8000");
        var audience = environment.getOrDefault("WXAUTH_AUDIENCE", "wxauth");
        var port = Integer.parseInt(environment.getOrDefault("PORT", "8010"));
        var orders = new Orders(WxauthGuard.builder(issuer).audience(audience).build());
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", orders::answer);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.start();
        System.out.println("listening on http://127.0.0.1:" + port);
    }

    private void answer(HttpExchange exchange) throws IOException {
        try (exchange) {
            try {
                var user = user(exchange);
                if (user == null) {
                    exchange.sendResponseHeaders(404, -1);
                } else {
                    send(exchange, 200, "application/json", json(user));
                }
            } catch (WxauthRefusal refusal) {
                refuse(exchange, refusal);
            }
        }
    }

    /** Returns the user who sent the request, or null if there is no such path. */
    private WxauthUser user(HttpExchange exchange) {
        var authorization = exchange.getRequestHeaders().getFirst("Authorization");
        return switch (exchange.getRequestURI().getPath()) {
            case "/whoami", "/orders" -> guard.verify(authorization);
            case "/staff" -> guard.verify(authorization, "staff");
            case "/refund" -> guard.current().verify(authorization, "clerk");
            default -> null;
        };
    }

    private static void refuse(HttpExchange exchange, WxauthRefusal refusal) throws IOException {
        if (refusal.challenge() != null) {
            exchange.getResponseHeaders().set("WWW-Authenticate", refusal.challenge());
        }
        if (refusal.status() == 503) {
            exchange.getResponseHeaders().set("Retry-After", "5");
        }
        var headers = exchange.getRequestHeaders();
        var language = WxauthRefusal.language(headers.getFirst("Accept-Language"), headers.getFirst("User-Agent"));
        var problem = refusal.problem(language);
        send(exchange, refusal.status(), "application/problem+json", problem);
    }

    private static String json(WxauthUser user) {
        // The ids of wxauth need no escaping in JSON. For other texts, such as most external ids, use your JSON library.
        var externalId = user.externalId() == null ? "null" : "\"" + user.externalId() + "\"";
        return "{\"sub\": \"" + user.id() + "\", \"openid\": \"" + user.openid() + "\", \"app_id\": \"" + user.appId()
                + "\", \"external_id\": " + externalId + "}";
    }

    private static void send(HttpExchange exchange, int status, String type, String json) throws IOException {
        var body = json.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
    }
}
