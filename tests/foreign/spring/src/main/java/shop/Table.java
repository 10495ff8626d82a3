package shop;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintWriter;
import java.net.Socket;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.springframework.boot.SpringApplication;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.jdbc.core.JdbcTemplate;
import wxauth.guard.testing.TestIssuer;

/** Sends requests to the applications, and prints each with what was answered. */
public class Table {
    private static final String OTHERS_TOKEN = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoxfQ.c2ln";
    private static ConfigurableApplicationContext app;

    public static void main(String[] reactive) {
        int status = 1;
        try (TestIssuer issuer = new TestIssuer()) {
            alone(issuer);
            beside(issuer);
            accounts(issuer);
            refused(issuer);
            if (reactive.length > 0) reactive(issuer, Class.forName(reactive[0]));
            status = 0;
        } catch (Throwable failure) {
            failure.printStackTrace();
        }
        System.exit(status);
    }

    private static void alone(TestIssuer issuer) throws Exception {
        String right = issuer.authorization("o1");
        String staff = issuer.authorization("o2", "staff");
        String wrong = wrong(right);
        start("alone", shop.alone.App.class, issuer, "wxauth.open-paths=/free,POST /call-backs/{name},/api/{*rest},/tool/open");
        ask("guest", "GET /whoami");
        ask("wx.request", "GET /whoami");
        ask("right", "GET /whoami", right);
        ask("wrong", "GET /whoami", wrong);
        ask("two", "GET /whoami", right, right);
        ask("basic", "GET /whoami", "Basic eDp5");
        ask("website", "GET /whoami", issuer.token().scope("openid").authorization());
        ask("right", "GET /own", right);
        ask("right", "GET /staff", right);
        ask("staff", "GET /staff", staff);
        ask("guest", "GET /staff");
        ask("guest", "POST /orders");
        ask("right", "POST /orders", right);
        ask("right", "GET /later", right);
        for (String name : Arrays.asList("pay", "400", "404", "409", "p%61y", "pay/", "pay;a=1", "a%2Fb", "../whoami"))
            ask("guest", "POST /call-backs/" + name);
        ask("guest", "GET /call-backs/pay");
        ask("wrong", "POST /call-backs/pay", wrong);
        ask("right", "POST /call-backs/pay", right);
        ask("basic", "POST /call-backs/pay", "Basic eDp5");
        for (String path : Arrays.asList("/free", "/free/", "/FREE", "//free", "/free/../whoami", "/nothing", "/error"))
            ask("guest", "GET " + path);
        ask("guest", "GET /api/any/thing");
        for (String path : Arrays.asList("/tool/free", "/tool/api/x", "/tool/open", "/actuator/health")) ask("guest", "GET " + path);
        ask("right", "GET /tool/free", right);
        ask("right", "GET /nothing", right);
        ask("guest", "HEAD /free");
        ask("guest", "OPTIONS /whoami");
        ask("preflight", "OPTIONS /whoami");
        ask("browser", "GET /whoami", wrong);
        app.close();
        start("alone, current", shop.alone.App.class, issuer, "wxauth.current=true");
        ask("right", "GET /whoami", right);
        issuer.ban(TestIssuer.USER_ID);
        ask("banned", "GET /whoami", right);
        issuer.away(true);
        ask("away", "GET /whoami", right);
        issuer.away(false);
        app.close();
    }

    private static void beside(TestIssuer issuer) throws Exception {
        String right = issuer.authorization("o1");
        String wrong = wrong(right);
        for (String stateless : Arrays.asList("true", "false")) {
            shop.beside.App.SEEN.clear();
            String name = "beside a login " + (stateless.equals("true") ? "without" : "with") + " sessions";
            start(name, shop.beside.App.class, issuer, "wxauth.beside-login=true", "wxauth.open-paths=POST /call-backs/{name}",
                    "own.stateless=" + stateless);
            ask("guest", "GET /whoami");
            ask("right", "GET /whoami", right);
            ask("right", "GET /staff", right);
            ask("staff", "GET /staff", issuer.authorization("o1", "staff"));
            ask("right", "POST /whoami", right);
            ask("right with cookie", "POST /whoami", right);
            ask("own", "POST /whoami", "Bearer own");
            ask("wrong", "GET /whoami", wrong);
            ask("two", "GET /whoami", "Bearer own", right);
            ask("website", "GET /whoami", issuer.token().scope("openid").authorization());
            ask("own", "GET /whoami", "Bearer own");
            ask("other", "GET /whoami", OTHERS_TOKEN);
            ask("right", "GET /fails", right);
            ask("right", "GET /later", right);
            ask("guest", "POST /call-backs/pay");
            ask("guest", "POST /call-backs/409");
            ask("right", "POST /call-backs/pay", right);
            ask("wrong", "POST /call-backs/pay", wrong);
            ask("guest with cookie", "POST /call-backs/pay");
            ask("guest", "GET /call-backs/pay");
            System.out.println("looked up by the own login: " + new TreeSet<>(shop.beside.App.SEEN));
            app.close();
        }
    }

    private static void accounts(TestIssuer issuer) throws Exception {
        for (String beside : Arrays.asList("false", "true")) {
            start("accounts, beside a login: " + beside, shop.accounts.App.class, issuer, "wxauth.beside-login=" + beside,
                    "wxauth.login-path=POST /login", "wxauth.open-paths=/free");
            String first = issuer.token().userId(id(1)).openid("new").authorization();
            String known = issuer.token().userId(id(2)).openid("known").authorization();
            String called = issuer.token().userId(id(3)).openid("by-phone").authorization();
            issuer.setPhone(id(3), "+8613800138000");
            ask("new", "GET /whoami", first);
            ask("new", "GET /free", first);
            List<String> lines = IntStream.range(0, 5).parallel().mapToObj(number -> answer("new", "POST /login", first))
                    .collect(Collectors.toList());
            System.out.println("five at once: " + new TreeSet<>(lines));
            ask("new", "GET /whoami", first);
            ask("new", "GET /free", first);
            ask("known", "POST /login", known);
            ask("known", "GET /whoami", known);
            ask("by phone", "POST /login", called);
            ask("guest", "POST /login");
            ask("banned here", "POST /login", issuer.token().userId(id(4)).openid("banned-here").authorization());
            ask("half", "POST /login", issuer.token().userId(id(5)).openid("half").authorization());
            ask("raced", "POST /login", issuer.token().userId(id(6)).openid("raced").authorization());
            ask("unseen", "POST /login", issuer.token().userId(id(8)).openid("unseen").authorization());
            ask("crossed", "POST /login", issuer.token().userId(id(9)).openid("crossed").authorization());
            issuer.away(true);
            ask("away", "POST /login", issuer.token().userId(id(7)).openid("away").authorization());
            ask("away", "GET /whoami", first);
            issuer.away(false);
            System.out.println(app.getBean(JdbcTemplate.class)
                    .queryForList("SELECT id, openid FROM member ORDER BY id"));
            app.close();
        }
    }

    private static void reactive(TestIssuer issuer, Class<?> application) {
        String right = issuer.token().userId(id(9)).openid("o1").authorization();
        String wrong = wrong(right);
        String[] settings = {
            "spring.main.web-application-type=reactive", "wxauth.open-paths=/free,POST /call-backs/{name}",
            "wxauth.login-path=POST /login",
        };
        start("reactive", application, issuer, settings);
        ask("guest", "GET /whoami");
        ask("wx.request", "GET /whoami");
        ask("new", "GET /whoami", right);
        ask("new", "GET /free", right);
        ask("right", "POST /login", right);
        ask("right", "GET /whoami", right);
        ask("wrong", "GET /whoami", wrong);
        ask("two", "GET /whoami", right, right);
        ask("basic", "GET /whoami", "Basic eDp5");
        ask("website", "GET /whoami", issuer.token().scope("openid").authorization());
        ask("right", "GET /staff", right);
        ask("staff", "GET /staff", issuer.token().userId(id(9)).openid("o1").roles("staff").authorization());
        ask("guest", "POST /whoami");
        for (String name : Arrays.asList("pay", "400", "404", "409", "pay/")) ask("guest", "POST /call-backs/" + name);
        ask("guest", "GET /call-backs/pay");
        ask("wrong", "POST /call-backs/pay", wrong);
        ask("right", "POST /call-backs/pay", right);
        for (String path : Arrays.asList("/free", "/free/", "/FREE", "/nothing")) ask("guest", "GET " + path);
        ask("right", "GET /nothing", right);
        ask("right", "GET /fails", right);
        ask("preflight", "OPTIONS /whoami");
        ask("browser", "GET /free");
        app.close();
        refuse(application, issuer, settings[0], settings[2], "wxauth.beside-login=true");
        refuse(application, issuer, settings[0], settings[2], "own.chain=true");
    }

    private static String id(int number) {
        return "01900000-0000-7000-8000-0000000001" + (10 + number);
    }

    private static void refused(TestIssuer issuer) {
        System.out.println("\nsettings");
        for (String paths : Arrays.asList("/**", "/*", "/{all}", "/{a}/*", "/{*all}", "free", "/{free", "FETCH /free", "GET  POST /x"))
            refuse(shop.alone.App.class, issuer, "wxauth.open-paths=" + paths);
        refuse(shop.beside.App.class, issuer, "own.stateless=true");
        refuse(shop.beside.App.class, issuer, "own.stateless=true", "own.pattern=/**");
        refuse(shop.alone.App.class, issuer, "wxauth.beside-login=true");
        refuse(shop.accounts.App.class, issuer);
        refuse(shop.alone.App.class, issuer, "wxauth.login-path=POST /login");
        refuse(shop.alone.App.class, issuer, "wxauth.issuer=http://auth.example.com");
    }

    private static String wrong(String right) {
        return right.substring(0, right.length() - 6) + "AAAAAA";
    }

    private static void run(Class<?> application, TestIssuer issuer, String... settings) {
        List<String> all = new ArrayList<>(Arrays.asList("--wxauth.issuer=" + issuer.url(), "--server.address=127.0.0.1"));
        all.addAll(Arrays.asList("--server.port=0", "--logging.level.root=off", "--spring.main.banner-mode=off"));
        for (String setting : settings) all.add("--" + setting);
        app = SpringApplication.run(application, all.toArray(new String[0]));
    }

    private static void start(String name, Class<?> application, TestIssuer issuer, String... settings) {
        System.out.println("\n" + name);
        run(application, issuer, settings);
    }

    private static void refuse(Class<?> application, TestIssuer issuer, String... settings) {
        try {
            run(application, issuer, settings);
            System.out.println("started with " + Arrays.asList(settings));
            app.close();
        } catch (RuntimeException refused) {
            Throwable cause = refused;
            while (cause.getCause() != null && cause.getCause() != cause) cause = cause.getCause();
            System.out.println(String.valueOf(cause.getMessage()).split("\n")[0]);
        }
    }

    private static void ask(String who, String line, String... authorizations) {
        System.out.println(answer(who, line, authorizations));
    }

    private static String answer(String who, String line, String... authorizations) {
        int port = Integer.parseInt(app.getEnvironment().getProperty("local.server.port"));
        try (Socket socket = new Socket("127.0.0.1", port)) {
            PrintWriter out = new PrintWriter(socket.getOutputStream());
            out.print(line + " HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 0\r\n");
            if (who.equals("preflight")) out.print("Access-Control-Request-Method: GET\r\n");
            if (who.equals("preflight") || who.equals("browser")) out.print("Origin: https://a.example\r\n");
            if (who.equals("wx.request")) out.print("User-Agent: Mozilla/5.0 MicroMessenger/8.0.60\r\n");
            if (who.endsWith("cookie")) out.print("Cookie: JSESSIONID=0123\r\n");
            for (String authorization : authorizations) out.print("Authorization: " + authorization + "\r\n");
            out.print("\r\n");
            out.flush();
            String answer = read(socket);
            String code = answer.replaceAll("(?s).*\"code\":\"(.*?)\".*", "$1");
            String body = code.equals(answer)
                    ? answer.replaceAll("(?s).*?\r\n\r\n", "").replaceAll("[0-9a-f]+\r\n|\r\n", "") : code;
            String challenge = answer.replaceAll("(?s).*WWW-Authenticate: (.*?)\r\n.*", " $1");
            String told = body.startsWith("{\"timestamp") || body.startsWith("<") ? "" : " " + body;
            return who + ", " + line + ": " + answer.substring(9, 12) + told
                    + (challenge.equals(answer) ? "" : challenge)
                    + (answer.contains("\u767b\u5f55") ? " in Chinese" : "")
                    + (answer.contains("Set-Cookie") ? " cookie" : "")
                    + (answer.contains("Access-Control-Allow-Origin") ? " cors" : "");
        } catch (IOException failure) {
            throw new IllegalStateException(failure);
        }
    }

    private static String read(Socket socket) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        byte[] piece = new byte[8192];
        for (int length = socket.getInputStream().read(piece); length >= 0; length = socket.getInputStream().read(piece))
            all.write(piece, 0, length);
        return all.toString("UTF-8");
    }
}
