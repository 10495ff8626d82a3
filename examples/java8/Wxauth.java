package com.example.orders;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.net.HttpURLConnection;
import java.net.MalformedURLException;
import java.net.URL;
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
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.logging.Logger;

/** Verifies access tokens of wxauth with only the JDK, version 8 or newer. Create one object for the whole service. */
public final class Wxauth {
    private static final long CLOCK_SKEW = 30; // seconds
    private static final Duration FRESH_FOR = Duration.ofMinutes(5);
    private static final Duration KEPT_FOR = Duration.ofHours(24); // while wxauth is unavailable
    private static final long LONGEST_READ = 5; // seconds
    private static final int LARGEST = 256 * 1024;
    private static final Logger LOG = Logger.getLogger("wxauth");

    /**
     * The claims of a valid access token. `externalId` is the user's id in the system from which they were imported, or
     * null. `scope` contains the scopes granted to a website or an agent, and is null in the tokens of your
     * mini-programs.
     */
    public static final class User {
        public final String id;
        public final String appId;
        public final String openid;
        public final String externalId;
        public final String sessionId;
        public final List<String> roles;
        public final String scope;

        User(Map<String, Object> claims) throws InvalidToken {
            String clientId = text(claims, "client_id");
            Object app = claims.get("app_id");
            List<String> named = new ArrayList<>();
            if (claims.get("roles") instanceof List) {
                for (Object role : (List<?>) claims.get("roles")) {
                    if (role instanceof String) {
                        named.add((String) role);
                    }
                }
            }
            id = text(claims, "sub");
            appId = app instanceof String ? (String) app : clientId;
            openid = text(claims, "openid");
            externalId = claims.containsKey("external_id") ? text(claims, "external_id") : null;
            sessionId = text(claims, "sid");
            roles = Collections.unmodifiableList(named);
            scope = claims.containsKey("scope") ? String.valueOf(claims.get("scope")) : null;
        }
    }

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
    private final URL keysUrl;
    private final ECParameterSpec curve;

    // The lock of this object guards the following fields.
    private Map<String, PublicKey> keys = Collections.emptyMap();
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
        try {
            keysUrl = new URL(issuer + "/.well-known/jwks.json");
            AlgorithmParameters parameters = AlgorithmParameters.getInstance("EC");
            parameters.init(new ECGenParameterSpec("secp256r1"));
            this.curve = parameters.getParameterSpec(ECParameterSpec.class);
        } catch (MalformedURLException e) {
            throw new IllegalArgumentException("not a URL: " + issuer, e);
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every JDK has this curve", e);
        }
    }

    /**
     * Returns the user of a token. `token` is the text after "Bearer " in the Authorization header. Throws
     * InsufficientScope, which is an InvalidToken, for the token of a website or an agent.
     */
    public User verify(String token) throws InvalidToken, KeysUnavailable {
        String[] parts = token.split("\\.", -1);
        if (token.length() > 8192 || parts.length != 3) {
            throw new InvalidToken("not a JWT");
        }
        Map<String, Object> header = object(parts[0]);
        Map<String, Object> claims = object(parts[1]);
        String type = header.get("typ") instanceof String ? bare((String) header.get("typ")) : "";
        if (!"ES256".equals(header.get("alg")) || !type.equals("at+jwt") || header.containsKey("crit")) {
            throw new InvalidToken("not an access token");
        }
        if (!isSigned(key(text(header, "kid")), parts)) {
            throw new InvalidToken("the signature is wrong");
        }
        Object named = claims.get("aud");
        List<?> audiences = named instanceof List ? (List<?>) named : Collections.singletonList(text(claims, "aud"));
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
        User user = new User(claims);
        if (claims.containsKey("scope") && !websites) {
            throw new InsufficientScope();
        }
        return user;
    }

    private boolean isSigned(PublicKey key, String[] parts) throws InvalidToken {
        byte[] signed = bytes(parts[2]);
        if (signed.length != 64) {
            return false;
        }
        // Some JDKs accept a signature that consists of zeros (CVE-2022-21449).
        for (int start = 0; start < 64; start += 32) {
            BigInteger half = new BigInteger(1, Arrays.copyOfRange(signed, start, start + 32));
            if (half.signum() == 0 || half.compareTo(curve.getOrder()) >= 0) {
                return false;
            }
        }
        try {
            Signature verifier = Signature.getInstance("SHA256withECDSA");
            verifier.initVerify(key);
            verifier.update((parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII));
            return verifier.verify(der(signed));
        } catch (GeneralSecurityException wrong) {
            return false;
        }
    }

    /** Returns the signature in the format that Java 8 requires, which is a sequence of two integers (X9.62). */
    private static byte[] der(byte[] signed) {
        byte[] r = new BigInteger(1, Arrays.copyOf(signed, 32)).toByteArray();
        byte[] s = new BigInteger(1, Arrays.copyOfRange(signed, 32, 64)).toByteArray();
        ByteBuffer der = ByteBuffer.allocate(6 + r.length + s.length);
        der.put((byte) 0x30).put((byte) (4 + r.length + s.length));
        der.put((byte) 2).put((byte) r.length).put(r);
        der.put((byte) 2).put((byte) s.length).put(s);
        return der.array();
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
                Thread thread = new Thread(this::read, "wxauth-keys");
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
            LOG.warning("wxauth's keys could not be read: " + failure);
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

    private byte[] document() throws IOException {
        long begun = System.nanoTime();
        HttpURLConnection connection = (HttpURLConnection) keysUrl.openConnection();
        connection.setConnectTimeout((int) TimeUnit.SECONDS.toMillis(LONGEST_READ));
        connection.setReadTimeout((int) TimeUnit.SECONDS.toMillis(LONGEST_READ));
        connection.setInstanceFollowRedirects(false);
        try {
            if (connection.getResponseCode() != 200) {
                throw new IOException("status " + connection.getResponseCode());
            }
            ByteArrayOutputStream document = new ByteArrayOutputStream();
            byte[] piece = new byte[8192];
            InputStream body = connection.getInputStream();
            for (int length = body.read(piece); length >= 0; length = body.read(piece)) {
                document.write(piece, 0, length);
                long seconds = TimeUnit.NANOSECONDS.toSeconds(System.nanoTime() - begun);
                if (document.size() > LARGEST || seconds > LONGEST_READ) {
                    throw new IOException("too large, or too slow");
                }
            }
            return document.toByteArray();
        } finally {
            connection.disconnect();
        }
    }

    /**
     * Returns the keys for ES256. Throws if there is none, because the response might come from a gateway, for example
     * during maintenance.
     */
    private Map<String, PublicKey> published(byte[] document) throws GeneralSecurityException, InvalidToken {
        Map<String, PublicKey> found = new HashMap<>();
        Object listed = object(document).get("keys");
        for (Object each : listed instanceof List ? (List<?>) listed : Collections.emptyList()) {
            Map<?, ?> jwk = each instanceof Map ? (Map<?, ?>) each : Collections.emptyMap();
            ECPoint point = point(jwk);
            if (point != null) {
                PublicKey key = KeyFactory.getInstance("EC").generatePublic(new ECPublicKeySpec(point, curve));
                found.put((String) jwk.get("kid"), key);
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
        if (!isForES256 || !(jwk.get("kid") instanceof String) || "".equals(jwk.get("kid"))) {
            return null;
        }
        try {
            BigInteger x = coordinate(jwk.get("x"));
            BigInteger y = coordinate(jwk.get("y"));
            BigInteger prime = ((ECFieldFp) curve.getCurve().getField()).getP();
            BigInteger right = x.pow(2).add(curve.getCurve().getA()).multiply(x).add(curve.getCurve().getB());
            boolean isOnCurve = y.pow(2).subtract(right).mod(prime).signum() == 0;
            return isOnCurve && x.max(y).compareTo(prime) < 0 ? new ECPoint(x, y) : null;
        } catch (InvalidToken wrong) {
            return null;
        }
    }

    private static BigInteger coordinate(Object value) throws InvalidToken {
        if (value instanceof String && ((String) value).length() == 43) {
            return new BigInteger(1, bytes((String) value));
        }
        throw new InvalidToken("no coordinate of P-256");
    }

    /** Returns the type without "application/", because tokens can omit this prefix (RFC 7515, section 4.1.9). */
    private static String bare(String type) {
        return type.toLowerCase(Locale.ROOT).replaceFirst("^application/", "");
    }

    private static byte[] bytes(String base64) throws InvalidToken {
        try {
            byte[] bytes = Base64.getUrlDecoder().decode(base64);
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
        Object text = from.get(name);
        if (text instanceof String && !((String) text).isEmpty()) {
            return (String) text;
        }
        throw new InvalidToken(name + " is missing");
    }

    private static double number(Map<String, Object> from, String name) throws InvalidToken {
        Object number = from.get(name);
        if (number instanceof Double) {
            return (Double) number;
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
            Map<String, Object> members = members(0);
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
            Map<String, Object> members = new LinkedHashMap<>();
            if (isEmpty('{', '}', depth)) {
                return members;
            }
            do {
                skipSpace();
                String name = string();
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
            List<Object> items = new ArrayList<>();
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
            StringBuilder string = new StringBuilder();
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
            String number = text.substring(start, at);
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
