package com.example.orders;

import java.io.ByteArrayOutputStream;
import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.ECFieldFp;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Verifies access tokens of wxauth with only the JDK, version 17 or newer. Create one object for the whole service. */
public final class Wxauth {
    private static final long CLOCK_SKEW = 30; // seconds
    private static final Duration FRESH_FOR = Duration.ofMinutes(5);
    private static final Duration KEPT_FOR = Duration.ofHours(24); // while wxauth is unavailable
    private static final long LONGEST_READ = 5; // seconds
    private static final int LARGEST = 256 * 1024;
    private static final System.Logger LOG = System.getLogger("wxauth");

    /**
     * The claims of a valid access token. `externalId` is the user's id in the system from which they were imported, or
     * null. `scope` contains the scopes granted to a website or an agent, and is null in the tokens of your
     * mini-programs.
     */
    public record User(
            String id,
            String appId,
            String openid,
            String externalId,
            String sessionId,
            List<String> roles,
            String scope) {}

    /** The token is not valid. Return status 401, and write the message to your log. */
    public static class InvalidToken extends Exception {
        private static final long serialVersionUID = 1;

        InvalidToken(String message) {
            super(message);
        }
    }

    /** The token was issued to a website or an agent. Return status 403, with error="insufficient_scope". */
    public static final class InsufficientScope extends InvalidToken {
        private static final long serialVersionUID = 1;

        InsufficientScope() {
            super("the token of a website or an agent");
        }
    }

    /** The keys cannot be read. Return status 503 with the header Retry-After: 5. */
    public static final class KeysUnavailable extends Exception {
        private static final long serialVersionUID = 1;

        KeysUnavailable() {
            super("wxauth's keys cannot be read");
        }
    }

    private final String issuer;
    private final String audience;
    private final boolean websites;
    private final URI keysUri;
    private final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(LONGEST_READ)).build();
    private final ECParameterSpec curve;

    // The lock of this object guards the following fields.
    private Map<String, PublicKey> keys = Map.of();
    private long readAt;
    private boolean isRead;
    private CompletableFuture<Void> reading; // null if no read is in progress
    private long nextAt = System.nanoTime(); // no read begins before this time
    private int failures; // the number of failed reads since the last success

    /** Accepts only tokens of your own apps. */
    public Wxauth(String issuer, String audience) {
        this(issuer, audience, false);
    }

    /** If `websites` is true, also accepts tokens of websites and agents, whose users have a `scope`. */
    public Wxauth(String issuer, String audience, boolean websites) {
        this.issuer = issuer;
        this.audience = audience;
        this.websites = websites;
        this.keysUri = URI.create(issuer + "/.well-known/jwks.json");
        try {
            var parameters = AlgorithmParameters.getInstance("EC");
            parameters.init(new ECGenParameterSpec("secp256r1"));
            this.curve = parameters.getParameterSpec(ECParameterSpec.class);
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every JDK has this curve", e);
        }
    }

    /**
     * Returns the user of a token. `token` is the text after "Bearer " in the Authorization header. Throws
     * InsufficientScope, which is an InvalidToken, for the token of a website or an agent.
     */
    public User verify(String token) throws InvalidToken, KeysUnavailable {
        var parts = token.split("\\.", -1);
        if (token.length() > 8192 || parts.length != 3) {
            throw new InvalidToken("not a JWT");
        }
        var header = object(parts[0]);
        var claims = object(parts[1]);
        var type = header.get("typ") instanceof String text ? bare(text) : "";
        if (!"ES256".equals(header.get("alg")) || !type.equals("at+jwt") || header.containsKey("crit")) {
            throw new InvalidToken("not an access token");
        }
        if (!isSigned(key(text(header, "kid")), parts)) {
            throw new InvalidToken("the signature is wrong");
        }
        var audiences = claims.get("aud") instanceof List<?> list ? list : List.of(text(claims, "aud"));
        if (!issuer.equals(claims.get("iss")) || !audiences.contains(audience)) {
            throw new InvalidToken("iss is " + claims.get("iss") + ", aud is " + claims.get("aud"));
        }
        long now = System.currentTimeMillis() / 1000;
        double from = Math.max(number(claims, "iat"), claims.containsKey("nbf") ? number(claims, "nbf") : 0);
        if (from > now + CLOCK_SKEW) {
            throw new InvalidToken("the token is not valid yet: compare the clocks");
        }
        if (number(claims, "exp") <= now - CLOCK_SKEW) {
            throw new InvalidToken("the token has expired");
        }
        text(claims, "jti");
        var clientId = text(claims, "client_id");
        var roles = new ArrayList<String>();
        if (claims.get("roles") instanceof List<?> list) {
            for (var role : list) {
                if (role instanceof String name) {
                    roles.add(name);
                }
            }
        }
        var appId = claims.get("app_id") instanceof String other ? other : clientId;
        var externalId = claims.containsKey("external_id") ? text(claims, "external_id") : null;
        var scope = claims.containsKey("scope") ? String.valueOf(claims.get("scope")) : null;
        var user = new User(
                text(claims, "sub"),
                appId,
                text(claims, "openid"),
                externalId,
                text(claims, "sid"),
                List.copyOf(roles),
                scope);
        if (claims.containsKey("scope") && !websites) {
            throw new InsufficientScope();
        }
        return user;
    }

    private boolean isSigned(PublicKey key, String[] parts) throws InvalidToken {
        var signed = bytes(parts[2]);
        if (signed.length != 64) {
            return false;
        }
        // Some JDKs accept a signature that consists of zeros (CVE-2022-21449).
        for (int start = 0; start < 64; start += 32) {
            var half = new BigInteger(1, signed, start, 32);
            if (half.signum() == 0 || half.compareTo(curve.getOrder()) >= 0) {
                return false;
            }
        }
        try {
            var verifier = Signature.getInstance("SHA256withECDSAinP1363Format");
            verifier.initVerify(key);
            verifier.update((parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII));
            return verifier.verify(signed);
        } catch (GeneralSecurityException wrong) {
            return false;
        }
    }

    /**
     * Returns the key with this id. If the key is unknown, or the keys are ten minutes old, the request that starts a
     * read waits for it. Other requests use the keys in memory. Otherwise, forged tokens could block all threads while
     * wxauth does not respond. Only the very first read makes all requests wait, so that no request fails while the
     * service starts. wxauth publishes a key six minutes before it signs, so only keys older than five minutes can lack
     * one that signs.
     */
    private PublicKey key(String kid) throws InvalidToken, KeysUnavailable {
        PublicKey key;
        Duration age;
        boolean isBegun;
        boolean isFirst;
        CompletableFuture<Void> pending;
        synchronized (this) {
            key = keys.get(kid);
            age = age();
            boolean isDue = key == null || age.compareTo(FRESH_FOR) > 0;
            isBegun = isDue && reading == null && System.nanoTime() - nextAt >= 0;
            isFirst = !isRead && failures == 0;
            if (isBegun) {
                var thread = new Thread(this::read, "wxauth-keys");
                thread.setDaemon(true);
                thread.start();
                reading = new CompletableFuture<>(); // the thread completes it, and needs this lock to do so
            }
            pending = reading;
        }
        if (pending != null) {
            boolean isOld = age.compareTo(FRESH_FOR.multipliedBy(2)) > 0;
            if (isFirst || isBegun && (key == null || isOld)) {
                await(pending);
            }
            synchronized (this) {
                key = keys.get(kid);
                age = age();
            }
        }
        if (age.compareTo(key == null ? FRESH_FOR : KEPT_FOR) > 0) {
            throw new KeysUnavailable();
        }
        if (key == null) {
            throw new InvalidToken("an unknown key");
        }
        return key;
    }

    private static void await(CompletableFuture<Void> reading) {
        try {
            reading.get(2 * LONGEST_READ, TimeUnit.SECONDS);
        } catch (Exception late) {
            // The caller continues with the keys that are in memory.
        }
    }

    private Duration age() {
        return isRead ? Duration.ofNanos(System.nanoTime() - readAt) : KEPT_FOR.multipliedBy(2);
    }

    private void read() {
        Map<String, PublicKey> found = null;
        try {
            found = published(document());
        } catch (Throwable failure) { // including errors such as OutOfMemoryError, because the keys must be read again
            LOG.log(System.Logger.Level.WARNING, "wxauth's keys could not be read: " + failure);
        }
        CompletableFuture<Void> ended;
        synchronized (this) {
            long pause = 10;
            if (found == null) {
                pause = Math.min((isRead ? 10L : 2L) << Math.min(failures, 5), 60);
                failures++;
            } else {
                keys = found;
                readAt = System.nanoTime();
                isRead = true;
                failures = 0;
            }
            nextAt = System.nanoTime() + TimeUnit.SECONDS.toNanos(pause);
            ended = reading;
            reading = null;
        }
        ended.complete(null);
    }

    private byte[] document() throws Exception {
        var document = new ByteArrayOutputStream();
        var body = BodyHandlers.ofByteArrayConsumer(piece -> {
            piece.ifPresent(document::writeBytes);
            if (document.size() > LARGEST) {
                throw new IllegalStateException("the document is too large");
            }
        });
        var asked = http.sendAsync(HttpRequest.newBuilder(keysUri).build(), body);
        try {
            var answer = asked.get(LONGEST_READ, TimeUnit.SECONDS);
            if (answer.statusCode() != 200) {
                throw new InvalidToken("status " + answer.statusCode());
            }
            return document.toByteArray();
        } finally {
            asked.cancel(true);
        }
    }

    /**
     * Returns the keys for ES256. Throws if there is none, because the response might come from a gateway, for example
     * during maintenance.
     */
    private Map<String, PublicKey> published(byte[] document) throws GeneralSecurityException, InvalidToken {
        var found = new HashMap<String, PublicKey>();
        if (object(document).get("keys") instanceof List<?> listed) {
            for (var each : listed) {
                var point = each instanceof Map<?, ?> jwk ? point(jwk) : null;
                if (point != null) {
                    var key = KeyFactory.getInstance("EC").generatePublic(new ECPublicKeySpec(point, curve));
                    found.put((String) ((Map<?, ?>) each).get("kid"), key);
                }
            }
        }
        if (found.isEmpty()) {
            throw new InvalidToken("there is no usable key");
        }
        return found;
    }

    /** Returns the point of a key for ES256, or null for any other key. */
    private ECPoint point(Map<?, ?> jwk) {
        boolean isForES256 = "EC".equals(jwk.get("kty"))
                && "P-256".equals(jwk.get("crv"))
                && (!jwk.containsKey("use") || "sig".equals(jwk.get("use")))
                && (!jwk.containsKey("alg") || "ES256".equals(jwk.get("alg")));
        if (!isForES256 || !(jwk.get("kid") instanceof String kid) || kid.isEmpty()) {
            return null;
        }
        try {
            var x = coordinate(jwk.get("x"));
            var y = coordinate(jwk.get("y"));
            var prime = ((ECFieldFp) curve.getCurve().getField()).getP();
            var right = x.pow(2).add(curve.getCurve().getA()).multiply(x).add(curve.getCurve().getB());
            boolean isOnCurve = y.pow(2).subtract(right).mod(prime).signum() == 0;
            return isOnCurve && x.max(y).compareTo(prime) < 0 ? new ECPoint(x, y) : null;
        } catch (InvalidToken wrong) {
            return null;
        }
    }

    private static BigInteger coordinate(Object value) throws InvalidToken {
        if (value instanceof String text && text.length() == 43) {
            return new BigInteger(1, bytes(text));
        }
        throw new InvalidToken("no coordinate of P-256");
    }

    /** Returns the type without "application/", because tokens can omit this prefix (RFC 7515, section 4.1.9). */
    private static String bare(String type) {
        return type.toLowerCase(Locale.ROOT).replaceFirst("^application/", "");
    }

    private static byte[] bytes(String base64) throws InvalidToken {
        try {
            var bytes = Base64.getUrlDecoder().decode(base64);
            if (Base64.getUrlEncoder().withoutPadding().encodeToString(bytes).equals(base64)) {
                return bytes;
            }
        } catch (IllegalArgumentException wrong) {
            // The exception is thrown below.
        }
        throw new InvalidToken("not base64url, or padded");
    }

    private static Map<String, Object> object(String base64) throws InvalidToken {
        return object(bytes(base64));
    }

    private static Map<String, Object> object(byte[] json) throws InvalidToken {
        try {
            return new Json(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(json)).toString()).document();
        } catch (CharacterCodingException wrong) {
            throw new InvalidToken("not UTF-8");
        }
    }

    private static String text(Map<String, Object> from, String name) throws InvalidToken {
        if (from.get(name) instanceof String text && !text.isEmpty()) {
            return text;
        }
        throw new InvalidToken(name + " is missing");
    }

    private static double number(Map<String, Object> from, String name) throws InvalidToken {
        if (from.get(name) instanceof Double number) {
            return number;
        }
        throw new InvalidToken(name + " is missing");
    }

    /**
     * A reader of JSON that is sufficient for tokens. It returns objects as Map, lists as List, and numbers as Double.
     */
    private static final class Json {
        private static final int DEEPEST = 16;
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        Map<String, Object> document() throws InvalidToken {
            skipSpace();
            if (peek() != '{') {
                throw wrong();
            }
            var members = members(0);
            skipSpace();
            if (at != text.length()) {
                throw wrong();
            }
            return members;
        }

        private Object value(int depth) throws InvalidToken {
            skipSpace();
            switch (peek()) {
                case '{':
                    return members(depth);
                case '[':
                    return items(depth);
                case '"':
                    return string();
                case 't':
                    return word("true", true);
                case 'f':
                    return word("false", false);
                case 'n':
                    return word("null", null);
                default:
                    return number();
            }
        }

        private Map<String, Object> members(int depth) throws InvalidToken {
            var members = new LinkedHashMap<String, Object>();
            if (isEmpty('{', '}', depth)) {
                return members;
            }
            do {
                skipSpace();
                var name = string();
                skipSpace();
                expect(':');
                if (members.containsKey(name)) {
                    throw wrong();
                }
                members.put(name, value(depth + 1));
            } while (goesOn('}'));
            return members;
        }

        private List<Object> items(int depth) throws InvalidToken {
            var items = new ArrayList<Object>();
            if (isEmpty('[', ']', depth)) {
                return items;
            }
            do {
                items.add(value(depth + 1));
            } while (goesOn(']'));
            return items;
        }

        private boolean isEmpty(char first, char last, int depth) throws InvalidToken {
            expect(first);
            if (depth > DEEPEST) {
                throw wrong();
            }
            skipSpace();
            if (peek() != last) {
                return false;
            }
            at++;
            return true;
        }

        private boolean goesOn(char last) throws InvalidToken {
            skipSpace();
            if (peek() == ',') {
                at++;
                return true;
            }
            expect(last);
            return false;
        }

        private String string() throws InvalidToken {
            expect('"');
            var string = new StringBuilder();
            for (char next = take(); next != '"'; next = take()) {
                if (next < ' ') {
                    throw wrong();
                }
                string.append(next == '\\' ? escaped() : next);
            }
            return string.toString();
        }

        private char escaped() throws InvalidToken {
            char next = take();
            if (next == 'u') {
                at += 4;
                if (at > text.length() || !text.substring(at - 4, at).matches("[0-9a-fA-F]{4}")) {
                    throw wrong();
                }
                return (char) Integer.parseInt(text.substring(at - 4, at), 16);
            }
            int which = "\"\\/bfnrt".indexOf(next);
            if (which < 0) {
                throw wrong();
            }
            return "\"\\/\b\f\n\r\t".charAt(which);
        }

        private Double number() throws InvalidToken {
            int start = at;
            while (at < text.length() && "+-.0123456789eE".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
            var number = text.substring(start, at);
            if (!number.matches("-?(0|[1-9]\\d*)(\\.\\d+)?([eE][+-]?\\d+)?")) {
                throw wrong();
            }
            return Double.valueOf(number);
        }

        private Object word(String word, Object value) throws InvalidToken {
            if (!text.startsWith(word, at)) {
                throw wrong();
            }
            at += word.length();
            return value;
        }

        private void skipSpace() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
        }

        private char peek() throws InvalidToken {
            if (at >= text.length()) {
                throw wrong();
            }
            return text.charAt(at);
        }

        private char take() throws InvalidToken {
            char next = peek();
            at++;
            return next;
        }

        private void expect(char wanted) throws InvalidToken {
            if (take() != wanted) {
                throw wrong();
            }
        }

        private InvalidToken wrong() {
            return new InvalidToken("not a JSON object");
        }
    }
}
