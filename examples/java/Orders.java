package com.example.orders;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

/** The service, guarded. */
public final class Orders {
    private final Wxauth wxauth;

    private Orders(Wxauth wxauth) {
        this.wxauth = wxauth;
    }

    public static void main(String[] arguments) throws Exception {
        var issuer = arguments.length > 0 ? arguments[0] : "http://127.0.0.1:8000";
        var port = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 8006;
        var orders = new Orders(new Wxauth(issuer, "wxauth"));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/orders", orders::answer);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.start();
        System.out.println("listening on http://127.0.0.1:" + port);
    }

    private void answer(HttpExchange exchange) throws IOException {
        try {
            var header = exchange.getRequestHeaders().getFirst("Authorization");
            if (header == null || !header.regionMatches(true, 0, "Bearer ", 0, 7)) {
                send(exchange, 401, "missing_token", "WWW-Authenticate", "Bearer");
                return;
            }
            var user = wxauth.verify(header.substring(7));
            if (exchange.getRequestMethod().equals("DELETE") && !user.roles().contains("clerk")) {
                send(exchange, 403, "insufficient_role", "WWW-Authenticate", "Bearer error=\"insufficient_scope\"");
                return;
            }
            send(exchange, 200, user.openid(), "Content-Type", "text/plain; charset=utf-8");
        } catch (Wxauth.InvalidToken refusal) {
            System.err.println("a token was refused: " + refusal.getMessage());
            send(exchange, 401, "invalid_token", "WWW-Authenticate", "Bearer error=\"invalid_token\"");
        } catch (Wxauth.KeysUnavailable away) {
            send(exchange, 503, "keys_unavailable", "Retry-After", "5");
        } finally {
            exchange.close();
        }
    }

    private static void send(HttpExchange exchange, int status, String text, String name, String value)
            throws IOException {
        var body = text.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set(name, value);
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
    }
}
