import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.URL;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.testing.TestIssuer;

/** Uses the guard as no page shows it, and prints what it says. */
public final class JavaTrials {
    public static void main(String[] arguments) throws Exception {
        Logger.getLogger("wxauth").setUseParentHandlers(false);
        switch (arguments[0]) {
            case "interrupted":
                interrupted();
                break;
            case "ports":
                ports();
                break;
            default:
                logged();
        }
        System.exit(0);
    }

    static void say(WxauthGuard guard, String authorization) {
        try {
            System.out.println("admitted " + guard.verify(authorization).isCurrent());
        } catch (WxauthRefusal refusal) {
            System.out.println(refusal.status() + " " + refusal.code());
        }
    }

    /** A thread is interrupted during the reading of the keys, and during a question. */
    static void interrupted() throws Exception {
        TestIssuer issuer = new TestIssuer();
        Thread.currentThread().interrupt();
        say(WxauthGuard.of(issuer.url()), issuer.authorization("o1"));
        System.out.println(Thread.interrupted());

        CountDownLatch asked = new CountDownLatch(1);
        CountDownLatch answers = new CountDownLatch(1);
        HttpServer front = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        front.setExecutor(Executors.newCachedThreadPool());
        front.createContext("/v1/verify", exchange -> {
            asked.countDown();
            try {
                answers.await();
            } catch (InterruptedException ended) {
                throw new IOException(ended);
            }
            exchange.sendResponseHeaders(401, -1);
            exchange.close();
        });
        front.createContext("/.well-known/jwks.json", exchange -> {
            try (InputStream keys = new URL(issuer.url() + "/.well-known/jwks.json").openStream()) {
                byte[] document = new byte[4096];
                int length = keys.read(document);
                exchange.sendResponseHeaders(200, length);
                exchange.getResponseBody().write(document, 0, length);
            }
            exchange.close();
        });
        front.start();
        WxauthGuard guard = WxauthGuard.builder(issuer.url()).orOffline()
                .internalUrl("http://127.0.0.1:" + front.getAddress().getPort()).build().current();
        Thread thread = virtual(() -> say(guard, issuer.authorization("o1")));
        asked.await();
        thread.interrupt();
        thread.join();
        answers.countDown();
        say(guard, issuer.authorization("o1"));
    }

    /** The interrupt of a virtual thread closes its connection. Before Java 21, there are none. */
    static Thread virtual(Runnable work) throws Exception {
        try {
            return (Thread) Thread.class.getMethod("startVirtualThread", Runnable.class).invoke(null, work);
        } catch (NoSuchMethodException old) {
            Thread thread = new Thread(work);
            thread.start();
            return thread;
        }
    }

    /** All ports of this machine are in use. */
    static void ports() throws Exception {
        TestIssuer issuer = new TestIssuer();
        WxauthGuard guard = WxauthGuard.builder(issuer.url()).orOffline().build().current();
        say(guard, issuer.authorization("o1"));
        List<Socket> taken = new ArrayList<>();
        try {
            for (int number = 0; number < 100; number++) {
                taken.add(new Socket("127.0.0.1", URI.create(issuer.url()).getPort()));
            }
        } catch (IOException none) {
            say(guard, issuer.authorization("o1"));
        }
    }

    /** Tokens are refused, most of them twice. */
    static void logged() {
        TestIssuer issuer = new TestIssuer();
        TestIssuer other = new TestIssuer();
        Logger.getLogger("wxauth").addHandler(new Handler() {
            @Override
            public void publish(LogRecord entry) {
                System.out.println(entry.getLevel() + " " + entry.getMessage().replace(issuer.url(), "ISSUER"));
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        });
        WxauthGuard guard = WxauthGuard.of(issuer.url());
        say(guard, other.token().claim("iss", '"' + issuer.url() + '"').authorization());
        say(guard, issuer.token().claim("iss", "\"https://evil\\n\\u202e\"").authorization());
        for (int number = 0; number < 2; number++) {
            say(guard.optional(), issuer.token().audience("shop").authorization());
            say(guard, issuer.token().expiresIn(-3600).authorization());
        }
        say(guard, issuer.token().claim("nbf", "9e9").claim("iat", "9e9").authorization().replace(" ", "  "));
        say(guard, "Bearer x");
        issuer.away(true);
        for (int number = 0; number < 2; number++) {
            say(guard.current(), issuer.authorization("o1"));
        }
        String wechat = "Mozilla/5.0 (iPhone) MicroMessenger/8.0.44";
        for (String agent : new String[] {wechat, wechat + " Language/zh_CN", wechat + " Language/en", "curl", null}) {
            System.out.print(WxauthRefusal.language("*", agent) + " " + WxauthRefusal.language("en", agent) + " ");
        }
        System.out.println(new WxauthRefusal("missing_token", "x").problem(null).contains("\"status\":401"));
    }
}
