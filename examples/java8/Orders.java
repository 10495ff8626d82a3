package com.example.orders;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.Executors;

/** The service. All its routes require a valid token. */
public final class Orders {
    private final Wxauth wxauth;

    private Orders(Wxauth wxauth) {
        this.wxauth = wxauth;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        String issuer = environment.getOrDefault("WXAUTH_ISSUER", "http://127.0.0.1:8000");
        int port = Integer.parseInt(environment.getOrDefault("PORT", "8010"));
        Orders orders = new Orders(new Wxauth(issuer, environment.getOrDefault("WXAUTH_AUDIENCE", "wxauth")));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", orders::answer);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.start();
        System.out.println("listening on http://127.0.0.1:" + port);
    }

    private void answer(HttpExchange exchange) throws IOException {
        try {
            Wxauth.User user = user(exchange);
            if (user == null) {
                return;
            }
            switch (exchange.getRequestURI().getPath()) {
                case "/whoami":
                case "/orders":
                    send(exchange, user);
                    break;
                case "/staff":
                    if (user.roles.contains("staff")) send(exchange, user);
                    else refuse(exchange, 403, "insufficient_role", null);
                    break;
                default:
                    send(exchange, 404, "{\"status\": 404, \"code\": \"not_found\"}");
            }
        } finally {
            exchange.close();
        }
    }

    /** Returns the user who sent the request. If the request is refused, sends the refusal and returns null. */
    private Wxauth.User user(HttpExchange exchange) throws IOException {
        String header = exchange.getRequestHeaders().getFirst("Authorization");
        if (header == null || !header.regionMatches(true, 0, "Bearer ", 0, 7)) {
            refuse(exchange, 401, "missing_token", "Bearer");
            return null;
        }
        try {
            return wxauth.verify(header.substring(7));
        } catch (Wxauth.InsufficientScope other) {
            refuse(exchange, 403, "insufficient_scope", "Bearer error=\"insufficient_scope\"");
        } catch (Wxauth.InvalidToken refusal) {
            System.err.println("a token was refused: " + refusal.getMessage());
            refuse(exchange, 401, "invalid_token", "Bearer error=\"invalid_token\"");
        } catch (Wxauth.KeysUnavailable away) {
            exchange.getResponseHeaders().set("Retry-After", "5");
            refuse(exchange, 503, "keys_unavailable", null);
        }
        return null;
    }

    private static void refuse(HttpExchange exchange, int status, String code, String challenge) throws IOException {
        if (challenge != null) {
            exchange.getResponseHeaders().set("WWW-Authenticate", challenge);
        }
        send(exchange, status, "{\"status\": " + status + ", \"code\": \"" + code + "\"}");
    }

    private static void send(HttpExchange exchange, Wxauth.User user) throws IOException {
        // The ids of wxauth need no escaping in JSON. For other texts, such as most external ids, use your JSON
        // library.
        String externalId = user.externalId == null ? "null" : "\"" + user.externalId + "\"";
        send(
                exchange,
                200,
                "{\"sub\": \"" + user.id + "\", \"openid\": \"" + user.openid + "\", \"app_id\": \"" + user.appId
                        + "\", \"external_id\": " + externalId + "}");
    }

    private static void send(HttpExchange exchange, int status, String json) throws IOException {
        byte[] body = json.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
    }
}
