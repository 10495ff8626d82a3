package wxauth.guard;

import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.security.Signature;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;

/** Verifies tokens as RFC 8725 and RFC 9068 require. */
final class Token {
    private static final int LONGEST = 8192; // characters
    private static final double CLOCK_SKEW = 30; // seconds, for exp, iat and nbf
    private static final Pattern UUID = Pattern.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");

    private Token() {}

    static WxauthUser verified(String token, String issuer, String audience, Keys keys, boolean allowsScope) {
        String[] parts = token.split("\\.", -1);
        if (token.length() > LONGEST || parts.length != 3) {
            throw WxauthRefusal.invalidToken("the token is not a JWS in compact form, or too long");
        }
        byte[] signature = bytes(parts[2]);
        if (signature.length != 64) {
            throw WxauthRefusal.invalidToken("the token has no ES256 signature");
        }
        String kid = keyId(Json.object(bytes(parts[0])));
        if (!isSigned(keys.key(kid), parts, signature)) {
            throw WxauthRefusal.invalidToken(
                    "the signature does not fit",
                    "its signature does not fit the key " + WxauthRefusal.shown(kid) + " of " + issuer);
        }
        return user(Json.object(bytes(parts[1])), issuer, audience, allowsScope);
    }

    private static String keyId(Map<String, Object> header) {
        Object type = header.get("typ");
        String kind = type instanceof String ? ((String) type).toLowerCase(Locale.ROOT) : "";
        if (!"ES256".equals(header.get("alg"))) {
            throw WxauthRefusal.invalidToken("alg is not ES256");
        }
        if (!kind.equals("at+jwt") && !kind.equals("application/at+jwt")) {
            throw WxauthRefusal.invalidToken("typ is not at+jwt");
        }
        if (header.containsKey("crit")) {
            throw WxauthRefusal.invalidToken("crit names an extension that is not understood");
        }
        Object kid = header.get("kid");
        if (!(kid instanceof String) || ((String) kid).isEmpty()) {
            throw WxauthRefusal.invalidToken("kid is missing");
        }
        return (String) kid;
    }

    private static WxauthUser user(Map<String, Object> claims, String issuer, String audience, boolean allowsScope) {
        Object named = claims.get("aud");
        if (!issuer.equals(claims.get("iss"))) {
            throw WxauthRefusal.invalidToken("iss is another issuer", differing("iss", claims, issuer));
        }
        if (!(named instanceof String ? Collections.singletonList(named) : texts(named, "aud")).contains(audience)) {
            throw WxauthRefusal.invalidToken("aud does not name this audience", differing("aud", claims, audience));
        }
        boolean hasScope = claims.containsKey("scope");
        boolean hasAppId = claims.containsKey("app_id");
        String clientId = text(claims, "client_id");
        boolean hasDocument = clientId.startsWith("https://") && hasScope && !hasAppId && !claims.containsKey("openid");
        // A program that describes itself by a document has no openid. The token of a login in a mini-program or mobile
        // app has no app_id.
        String openid = hasDocument ? "" : text(claims, "openid");
        String appId = hasDocument ? "" : text(claims, hasAppId ? "app_id" : "client_id");
        String externalId = claims.containsKey("external_id") ? text(claims, "external_id") : null;
        text(claims, "jti");
        List<String> roles = claims.containsKey("roles") ? texts(claims.get("roles"), "roles") : new ArrayList<>();
        String id = uuid(claims, "sub");
        String sessionId = uuid(claims, "sid");
        checkTimes(claims);
        if (hasScope && !allowsScope) {
            throw new WxauthRefusal(
                    "insufficient_scope", "this service doesn't accept the tokens of websites and agents");
        }
        List<String> scope = new ArrayList<>();
        if (hasScope || hasAppId) { // a website's token, which has an app_id, must also have a scope
            scope.addAll(Arrays.asList(text(claims, "scope").split(" ")));
            scope.removeIf(String::isEmpty);
        }
        return new WxauthUser(claims, id, sessionId, clientId, appId, openid, externalId, roles, scope, null, null);
    }

    private static void checkTimes(Map<String, Object> claims) {
        double now = System.currentTimeMillis() / 1000.0;
        for (String name : claims.containsKey("nbf") ? Arrays.asList("iat", "nbf") : Arrays.asList("iat")) {
            double ahead = number(claims, name) - now;
            if (ahead > CLOCK_SKEW) {
                throw WxauthRefusal.invalidToken(
                        name + " is in the future",
                        name + " is " + Math.round(ahead) + " s in the future by this machine's clock");
            }
        }
        double age = now - number(claims, "exp");
        if (age >= CLOCK_SKEW) {
            String logged = "a token was refused: expired " + Math.round(age) + " s ago by this machine's clock";
            throw new WxauthRefusal("token_expired", "the token has expired", logged, false);
        }
    }

    private static String differing(String name, Map<String, Object> claims, String expected) {
        return name + " is " + WxauthRefusal.shown(claims.get(name)) + ", this guard expects '" + expected + "'";
    }

    private static boolean isSigned(PublicKey key, String[] parts, byte[] signature) {
        // Some JDKs accept a signature that consists of zeros (CVE-2022-21449).
        for (int start = 0; start < 64; start += 32) {
            BigInteger half = new BigInteger(1, Arrays.copyOfRange(signature, start, start + 32));
            if (half.signum() == 0 || half.compareTo(Keys.CURVE.getOrder()) >= 0) {
                return false;
            }
        }
        try {
            Signature verifier = Signature.getInstance("SHA256withECDSA");
            verifier.initVerify(key);
            verifier.update((parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII));
            return verifier.verify(der(signature));
        } catch (GeneralSecurityException wrong) {
            return false;
        }
    }

    /** Returns the signature in the format that Java 8 requires, which is a sequence of two integers (X9.62). */
    private static byte[] der(byte[] signature) {
        byte[] r = new BigInteger(1, Arrays.copyOf(signature, 32)).toByteArray();
        byte[] s = new BigInteger(1, Arrays.copyOfRange(signature, 32, 64)).toByteArray();
        ByteBuffer der = ByteBuffer.allocate(6 + r.length + s.length);
        der.put((byte) 0x30).put((byte) (4 + r.length + s.length));
        der.put((byte) 2).put((byte) r.length).put(r);
        der.put((byte) 2).put((byte) s.length).put(s);
        return der.array();
    }

    /** Returns the bytes. Refuses text that is padded or spelt in a way that no encoder writes. */
    static byte[] bytes(String base64) {
        try {
            byte[] bytes = Base64.getUrlDecoder().decode(base64);
            if (Base64.getUrlEncoder().withoutPadding().encodeToString(bytes).equals(base64)) {
                return bytes;
            }
        } catch (IllegalArgumentException wrong) {
            // The refusal follows.
        }
        throw WxauthRefusal.invalidToken("a part of the token is not base64url");
    }

    private static String text(Map<String, Object> claims, String name) {
        if (claims.get(name) instanceof String) {
            return (String) claims.get(name);
        }
        throw WxauthRefusal.invalidToken(name + " is missing or not a string");
    }

    private static List<String> texts(Object value, String name) {
        List<String> texts = new ArrayList<>();
        for (Object each : value instanceof List ? (List<?>) value : Collections.singletonList(null)) {
            if (!(each instanceof String)) {
                throw WxauthRefusal.invalidToken(name + " is not a list of strings");
            }
            texts.add((String) each);
        }
        return texts;
    }

    private static String uuid(Map<String, Object> claims, String name) {
        String text = text(claims, name);
        if (!UUID.matcher(text).matches()) {
            throw WxauthRefusal.invalidToken(name + " is not a UUID");
        }
        return text.toLowerCase(Locale.ROOT);
    }

    private static double number(Map<String, Object> claims, String name) {
        if (claims.get(name) instanceof Double) {
            return (Double) claims.get(name);
        }
        throw WxauthRefusal.invalidToken(name + " is missing or not a number");
    }
}
