import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;

/** A service whose refunds need a guard that asks wxauth, or accepts the token during an outage. */
public final class Refunds {
    public static void main(String[] arguments) throws Exception {
        WxauthGuard.Builder builder = WxauthGuard.builder(arguments[0]).orOffline();
        WxauthGuard guard =
                (arguments[1].isEmpty() ? builder : builder.internalUrl(arguments[1])).build().current();
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[2])), 5000);
        server.createContext("/refund", exchange -> {
            int status = 200;
            String body = "";
            try {
                String authorization = exchange.getRequestHeaders().getFirst("Authorization");
                body = "{\"current\": " + guard.verify(authorization, "clerk").isCurrent() + "}";
            } catch (WxauthRefusal refusal) {
                status = refusal.status();
                body = refusal.problem(null);
            }
            byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(status, bytes.length);
            exchange.getResponseBody().write(bytes);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(400));
        server.start();
        System.out.println("running");
    }
}
