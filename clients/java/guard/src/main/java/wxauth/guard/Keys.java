package wxauth.guard;

import java.math.BigInteger;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.spec.ECFieldFp;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.time.Duration;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.logging.Logger;

/** The public keys of wxauth, which a thread of its own reads. */
final class Keys {
    static final String PATH = "/.well-known/jwks.json";
    static final ECParameterSpec CURVE = curve();
    private static final Duration FRESH_FOR = Duration.ofMinutes(5);
    private static final Duration KEPT_FOR = Duration.ofHours(24); // while wxauth is unavailable
    private static final int LONGEST_READ = 5; // seconds
    private static final int LONGEST_ID = 256; // characters
    private static final Logger LOG = Logger.getLogger("wxauth");

    private final String url;
    // The lock of this object guards the following fields.
    private Map<String, PublicKey> keys = Collections.emptyMap();
    private long readAt;
    private boolean isRead;
    private CompletableFuture<Void> reading; // null if no read is in progress
    private long nextAt = System.nanoTime(); // no read begins before this time
    private int failures; // the number of failed reads since the last success

    Keys(String base) {
        url = base + PATH;
    }

    private static ECParameterSpec curve() {
        try {
            AlgorithmParameters parameters = AlgorithmParameters.getInstance("EC");
            parameters.init(new ECGenParameterSpec("secp256r1"));
            return parameters.getParameterSpec(ECParameterSpec.class);
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException("every JDK has this curve", e);
        }
    }

    /**
     * Returns the key with this id. If the key is unknown, or the keys are ten minutes old, the request that starts a
     * read waits for it. Other requests use the keys in memory. Otherwise, forged tokens could block all threads while
     * wxauth does not respond. Only the very first read makes all requests wait, so that no request fails while the
     * service starts. wxauth publishes a key six minutes before it signs, so only keys older than five minutes can lack
     * one that signs.
     */
    PublicKey key(String kid) {
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
                try {
                    thread.start();
                    reading = new CompletableFuture<>(); // the thread completes it, and needs this lock to do so
                } catch (OutOfMemoryError tooManyThreads) {
                    isBegun = false; // the keys in memory are used
                }
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
            throw new WxauthRefusal("keys_unavailable", "wxauth's keys cannot be read");
        }
        if (key == null) {
            throw WxauthRefusal.invalidToken(
                    "the token names a key that is not known",
                    "its kid is " + WxauthRefusal.shown(kid) + ", which is no key of " + url);
        }
        return key;
    }

    private static void await(CompletableFuture<Void> reading) {
        try {
            reading.get(2L * LONGEST_READ, TimeUnit.SECONDS);
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        } catch (ExecutionException | TimeoutException late) {
            // The caller continues with the keys that are in memory.
        }
    }

    private Duration age() {
        return isRead ? Duration.ofNanos(System.nanoTime() - readAt) : KEPT_FOR.multipliedBy(2);
    }

    private void read() {
        Map<String, PublicKey> found = null;
        try {
            found = published(Answer.get(url, null, LONGEST_READ).document());
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

    /**
     * Returns the keys for ES256. Throws if there is none, because the response might come from a gateway, for example
     * during maintenance.
     */
    static Map<String, PublicKey> published(byte[] document) throws GeneralSecurityException {
        Map<String, PublicKey> found = new HashMap<>();
        Set<String> ambiguous = new HashSet<>();
        Object listed = Json.object(document).get("keys");
        for (Object each : listed instanceof List ? (List<?>) listed : Collections.emptyList()) {
            Map<?, ?> jwk = each instanceof Map ? (Map<?, ?>) each : Collections.emptyMap();
            ECPoint point = point(jwk);
            if (point != null) {
                PublicKey key = KeyFactory.getInstance("EC").generatePublic(new ECPublicKeySpec(point, CURVE));
                String kid = (String) jwk.get("kid");
                if (found.put(kid, key) != null) {
                    ambiguous.add(kid);
                }
            }
        }
        found.keySet().removeAll(ambiguous);
        if (found.isEmpty()) {
            throw WxauthRefusal.invalidToken("there is no usable key");
        }
        return found;
    }

    /** Returns the point of a key for ES256, or null for any other key. */
    private static ECPoint point(Map<?, ?> jwk) {
        boolean isForES256 = "EC".equals(jwk.get("kty"))
                && "P-256".equals(jwk.get("crv"))
                && (!jwk.containsKey("use") || "sig".equals(jwk.get("use")))
                && (!jwk.containsKey("alg") || "ES256".equals(jwk.get("alg")));
        Object kid = jwk.get("kid");
        if (!isForES256 || !(kid instanceof String) || "".equals(kid) || ((String) kid).length() > LONGEST_ID) {
            return null;
        }
        try {
            BigInteger x = coordinate(jwk.get("x"));
            BigInteger y = coordinate(jwk.get("y"));
            BigInteger prime = ((ECFieldFp) CURVE.getCurve().getField()).getP();
            BigInteger right = x.pow(2).add(CURVE.getCurve().getA()).multiply(x).add(CURVE.getCurve().getB());
            boolean isOnCurve = y.pow(2).subtract(right).mod(prime).signum() == 0;
            return isOnCurve && x.max(y).compareTo(prime) < 0 ? new ECPoint(x, y) : null;
        } catch (WxauthRefusal wrong) {
            return null;
        }
    }

    private static BigInteger coordinate(Object value) {
        if (value instanceof String && ((String) value).length() == 43) {
            return new BigInteger(1, Token.bytes((String) value));
        }
        throw WxauthRefusal.invalidToken("no coordinate of P-256");
    }
}
