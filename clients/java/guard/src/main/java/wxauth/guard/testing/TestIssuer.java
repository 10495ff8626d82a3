package wxauth.guard.testing;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.math.BigInteger;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.Signature;
import java.security.interfaces.ECPublicKey;
import java.security.spec.ECGenParameterSpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Issues access tokens to the tests of a service. It is a small server on loopback, which a guard for the issuer `url()`
 * takes for wxauth.
 */
public final class TestIssuer implements AutoCloseable {
    /** The user of a token that names no other one. */
    public static final String USER_ID = "01900000-0000-7000-8000-000000000001";
    /** The session of a token that names no other one. */
    public static final String SESSION_ID = "01900000-0000-7000-8000-000000000002";

    private static final Pattern SUB = Pattern.compile("\"sub\":\"([^\"]*)\"");
    private static final Pattern SID = Pattern.compile("\"sid\":\"([^\"]*)\"");
    private static final Pattern ROLES = Pattern.compile("\"roles\":\\[([^\\]]*)\\]");

    private final HttpServer server;
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final KeyPair keys;
    private final Set<String> banned = new HashSet<>();
    private final Set<String> ended = new HashSet<>();
    private final Map<String, List<String>> roles = new HashMap<>();
    private final Map<String, String> phones = new HashMap<>();
    private boolean isAway;

    public TestIssuer() {
        try {
            KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
            generator.initialize(new ECGenParameterSpec("secp256r1"));
            keys = generator.generateKeyPair();
            server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        } catch (IOException | GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
        server.createContext("/", this::answer);
        server.setExecutor(threads);
        server.start();
    }

    /** Returns the issuer, for example `http://127.0.0.1:40123`. */
    public String url() {
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    /** Returns the Authorization header with a token of this user, who has these roles. */
    public String authorization(String openid, String... roles) {
        return token().openid(openid).roles(roles).authorization();
    }

    public Token token() {
        return new Token();
    }

    /** Lets `current()` refuse this user from now on. */
    public synchronized void ban(String userId) {
        banned.add(userId);
    }

    /** Lets `current()` refuse this session from now on. */
    public synchronized void endSession(String sessionId) {
        ended.add(sessionId);
    }

    /** Sets the roles that `current()` finds, whatever the token says. */
    public synchronized void setRoles(String userId, String... names) {
        roles.put(userId, Arrays.asList(names));
    }

    /** Sets the verified number that `me()` finds. */
    public synchronized void setPhone(String userId, String phone) {
        phones.put(userId, phone);
    }

    /** Lets the issuer answer no more, as if wxauth could not be reached, or answer again. */
    public synchronized void away(boolean value) {
        isAway = value;
    }

    @Override
    public void close() {
        server.stop(0);
        threads.shutdownNow();
    }

    /** A token. Each value that is left out has a default. */
    public final class Token {
        private final Map<String, String> claims = new LinkedHashMap<>();

        private Token() {
            long now = System.currentTimeMillis() / 1000;
            claims.put("iss", quoted(url()));
            claims.put("iat", String.valueOf(now));
            claims.put("jti", quoted(UUID.randomUUID().toString()));
            userId(USER_ID).sessionId(SESSION_ID).openid("openid-of-a-test").appId("wxtest").audience("wxauth");
            expiresIn(900);
        }

        public Token userId(String value) {
            return claim("sub", quoted(value));
        }

        public Token sessionId(String value) {
            return claim("sid", quoted(value));
        }

        public Token openid(String value) {
            return claim("openid", quoted(value));
        }

        public Token appId(String value) {
            return claim("client_id", quoted(value));
        }

        public Token externalId(String value) {
            return claim("external_id", quoted(value));
        }

        public Token audience(String value) {
            return claim("aud", quoted(value));
        }

        public Token roles(String... names) {
            return claim("roles", Arrays.stream(names).map(TestIssuer::quoted).collect(Collectors.joining(",", "[", "]")));
        }

        /** Makes this the token of a website. */
        public Token scope(String value) {
            return claim("app_id", claims.get("client_id")).claim("client_id", quoted("shop")).claim("scope", quoted(value));
        }

        /** A guard admits the token for 30 seconds more. */
        public Token expiresIn(long seconds) {
            return claim("exp", String.valueOf(System.currentTimeMillis() / 1000 + seconds));
        }

        /** Sets a claim to a text in JSON. */
        public Token claim(String name, String json) {
            claims.put(name, json);
            return this;
        }

        public String authorization() {
            String payload = claims.entrySet().stream()
                    .map(claim -> quoted(claim.getKey()) + ":" + claim.getValue())
                    .collect(Collectors.joining(",", "{", "}"));
            String signed = encoded("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"test\"}") + "." + encoded(payload);
            return "Bearer " + signed + "." + signature(signed);
        }
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private static String encoded(String text) {
        return encoded(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String encoded(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }

    private String signature(String signed) {
        try {
            Signature signer = Signature.getInstance("SHA256withECDSA");
            signer.initSign(keys.getPrivate());
            signer.update(signed.getBytes(StandardCharsets.US_ASCII));
            byte[] der = signer.sign(); // a sequence of two integers (X9.62)
            byte[] first = Arrays.copyOfRange(der, 4, 4 + der[3]);
            byte[] second = Arrays.copyOfRange(der, 6 + der[3], der.length);
            byte[] raw = Arrays.copyOf(fixed(first), 64);
            System.arraycopy(fixed(second), 0, raw, 32, 32);
            return encoded(raw);
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Returns an integer in 32 bytes. */
    private static byte[] fixed(byte[] integer) {
        byte[] fixed = new byte[32];
        int length = Math.min(integer.length, 32);
        System.arraycopy(integer, integer.length - length, fixed, 32 - length, length);
        return fixed;
    }

    private static String coordinate(BigInteger value) {
        return encoded(fixed(value.toByteArray()));
    }

    private synchronized void answer(HttpExchange exchange) throws IOException {
        try {
            if (isAway) {
                return; // closes the connection without an answer
            }
            switch (exchange.getRequestURI().getPath()) {
                case "/.well-known/jwks.json":
                    ECPublicKey key = (ECPublicKey) keys.getPublic();
                    send(
                            exchange,
                            200,
                            "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"test\",\"x\":\""
                                    + coordinate(key.getW().getAffineX()) + "\",\"y\":\""
                                    + coordinate(key.getW().getAffineY()) + "\"}]}");
                    break;
                case "/v1/me":
                case "/v1/verify":
                    tell(exchange);
                    break;
                default:
                    send(exchange, 404, "");
            }
        } finally {
            exchange.close();
        }
    }

    /** Answers about a token that the guard has verified. */
    private void tell(HttpExchange exchange) throws IOException {
        String token = exchange.getRequestHeaders().getFirst("Authorization");
        String payload = new String(Base64.getUrlDecoder().decode(token.split("\\.")[1]), StandardCharsets.UTF_8);
        String user = found(SUB, payload);
        String session = found(SID, payload);
        if (banned.contains(user) || ended.contains(session)) {
            send(exchange, 401, "");
            return;
        }
        if (exchange.getRequestURI().getPath().equals("/v1/me")) {
            String phone = phones.containsKey(user) ? quoted(phones.get(user)) : "null";
            send(exchange, 200, "{\"phone\":" + phone + ",\"phone_verified\":" + phones.containsKey(user) + "}");
            return;
        }
        String named = found(ROLES, payload).replace("\"", "");
        exchange.getResponseHeaders().set("X-Auth-User-ID", user);
        exchange.getResponseHeaders().set("X-Auth-Session-ID", session);
        exchange.getResponseHeaders()
                .set("X-Auth-Roles", roles.containsKey(user) ? String.join(",", roles.get(user)) : named);
        send(exchange, 200, "");
    }

    private static String found(Pattern pattern, String text) {
        Matcher match = pattern.matcher(text);
        return match.find() ? match.group(1) : "";
    }

    private static void send(HttpExchange exchange, int status, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
        exchange.getResponseBody().write(bytes);
    }
}
