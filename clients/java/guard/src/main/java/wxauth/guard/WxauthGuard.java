package wxauth.guard;

import java.io.UnsupportedEncodingException;
import java.net.URI;
import java.net.URLEncoder;
import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.logging.Logger;

/**
 * Admits the callers whose access token is valid. Create one guard for the whole process, because each guard has its own
 * copy of the public keys. Many threads can call its methods at once.
 */
public final class WxauthGuard {
    private static final Logger LOG = Logger.getLogger("wxauth");
    private static final long LOG_PAUSE = TimeUnit.MINUTES.toNanos(1);

    private final Builder options;
    private final Keys keys;
    private final Authority authority;
    private final ConcurrentMap<String, Long> loggedAt;
    private final boolean asks;
    private final boolean isOptional;

    private WxauthGuard(
            Builder options,
            Keys keys,
            Authority authority,
            ConcurrentMap<String, Long> loggedAt,
            boolean asks,
            boolean isOptional) {
        this.options = options;
        this.keys = keys;
        this.authority = authority;
        this.loggedAt = loggedAt;
        this.asks = asks;
        this.isOptional = isOptional;
    }

    /** Returns a guard for the tokens of this issuer, which is wxauth's setting ISSUER. */
    public static WxauthGuard of(String issuer) {
        return builder(issuer).build();
    }

    /** The issuer must be an https URL, or http on loopback, without a slash at the end. */
    public static Builder builder(String issuer) {
        return new Builder(issuer);
    }

    /**
     * Returns a guard that also asks wxauth about each token, so that a ban or a sign-out counts at once. If wxauth does
     * not answer within 2 seconds, it refuses with 503, unless it was built with `orOffline`.
     */
    public WxauthGuard current() {
        return new WxauthGuard(options, keys, authority, loggedAt, true, isOptional);
    }

    /** Returns a guard for which a request without a bearer token has the user null. It refuses a wrong token. */
    public WxauthGuard optional() {
        return new WxauthGuard(options, keys, authority, loggedAt, asks, true);
    }

    /**
     * Returns the user of the token in an Authorization header, who has all of these roles. The header may be null.
     *
     * @return null for a guest of an optional guard
     * @throws WxauthRefusal with the status 401, 403 or 503
     */
    public WxauthUser verify(String authorization, String... roles) {
        for (String role : roles) {
            if (role.isEmpty()) {
                throw new IllegalArgumentException("a role is empty");
            }
        }
        String token = bearer(authorization);
        if (token.isEmpty()) {
            if (isOptional && roles.length == 0) {
                return null;
            }
            throw new WxauthRefusal("missing_token", "send the access token as 'Authorization: Bearer ...'");
        }
        WxauthUser user = user(token);
        if (!user.roles().containsAll(Arrays.asList(roles))) {
            throw new WxauthRefusal(
                    "insufficient_role", "this request requires the role " + String.join(", ", roles));
        }
        return user;
    }

    /**
     * Returns the user of a token, whose verified phone number wxauth is asked for.
     *
     * @throws WxauthRefusal with the status 401, 403 or 503
     */
    public WxauthUser me(String authorization) {
        WxauthUser user = verify(authorization);
        return user == null ? null : user.with(authority.phone(bearer(authorization)));
    }

    /**
     * Returns whether a token in an Authorization header claims to be of wxauth, so that another login leaves it alone.
     * This is no check: a stranger can write such a token.
     */
    public boolean isForThisGuard(String authorization) {
        String[] parts = bearer(authorization).split("\\.", -1);
        if (parts.length != 3) {
            return false;
        }
        return "at+jwt".equals(claimed(parts[0]).get("typ")) || options.issuer.equals(claimed(parts[1]).get("iss"));
    }

    private static Map<String, Object> claimed(String part) {
        try {
            return Json.object(Token.bytes(part));
        } catch (WxauthRefusal wrong) {
            return Collections.emptyMap();
        }
    }

    private static String bearer(String authorization) {
        boolean isBearer = authorization != null && authorization.regionMatches(true, 0, "Bearer ", 0, 7);
        if (!isBearer) {
            return "";
        }
        int start = 7;
        int end = authorization.length();
        while (start < end && authorization.charAt(start) == ' ') {
            start++;
        }
        while (end > start && authorization.charAt(end - 1) == ' ') {
            end--;
        }
        return authorization.substring(start, end);
    }

    private WxauthUser user(String token) {
        WxauthUser user = explaining(
                () -> Token.verified(token, options.issuer, options.audience, keys, options.allowsScope()));
        if (!asks) {
            return user;
        }
        try {
            return user.with(explaining(() -> authority.ask(token, user)), true);
        } catch (WxauthRefusal refusal) {
            if (options.orOffline && refusal.isOutage()) {
                return user.with(user.roles(), false);
            }
            throw refusal;
        }
    }

    /** Logs why a check refuses a token, once a minute for each cause. The causes are fixed texts. */
    private <T> T explaining(Supplier<T> check) {
        try {
            return check.get();
        } catch (WxauthRefusal refusal) {
            if (refusal.logged() != null && isDue(refusal.getMessage())) {
                LOG.warning(refusal.logged());
            }
            throw refusal;
        }
    }

    private boolean isDue(String cause) {
        long now = System.nanoTime();
        Long last = loggedAt.get(cause);
        boolean isDue = last == null || now - last >= LOG_PAUSE;
        return isDue && (last == null ? loggedAt.putIfAbsent(cause, now) == null : loggedAt.replace(cause, last, now));
    }

    /** Builds a guard. */
    public static final class Builder {
        private final String issuer;
        private String audience = "wxauth";
        private String internalUrl;
        private boolean websites;
        private boolean orOffline;

        private Builder(String issuer) {
            this.issuer = issuer;
            if (!isPlain(issuer) || !isSecure(issuer)) {
                throw new IllegalArgumentException("the issuer must be an https URL, or http on loopback, without user,"
                        + " query, fragment or a slash at the end");
            }
        }

        /** Sets wxauth's setting AUDIENCE, or the URL of a resource, whose tokens have scopes. */
        public Builder audience(String value) {
            if (value.isEmpty()) {
                throw new IllegalArgumentException("the audience is empty");
            }
            audience = value;
            return this;
        }

        /** Also admits the tokens of websites and agents, whose users have a scope. */
        public Builder websites() {
            websites = true;
            return this;
        }

        /** Lets `current()` admit valid tokens while wxauth is away. */
        public Builder orOffline() {
            orOffline = true;
            return this;
        }

        /** Sets wxauth's address in your own network, which may use plain HTTP. */
        public Builder internalUrl(String value) {
            if (!isPlain(value)) {
                throw new IllegalArgumentException("the internal URL must be an http or https URL without user, query,"
                        + " fragment or a slash at the end");
            }
            internalUrl = value;
            return this;
        }

        public WxauthGuard build() {
            String base = internalUrl == null ? issuer : internalUrl;
            Authority authority = new Authority(base, query(), orOffline);
            return new WxauthGuard(this, new Keys(base), authority, new ConcurrentHashMap<>(), false, false);
        }

        private boolean allowsScope() {
            return websites || isOfResource();
        }

        private boolean isOfResource() {
            return audience.startsWith("https://") || audience.startsWith("http://");
        }

        /** Returns the query of /v1/verify with which wxauth admits the tokens that this guard admits. */
        private String query() {
            try {
                return isOfResource() ? "?resource=" + URLEncoder.encode(audience, "UTF-8") : websites ? "?websites=true" : "";
            } catch (UnsupportedEncodingException impossible) {
                throw new IllegalStateException(impossible);
            }
        }

        private static boolean isPlain(String url) {
            return url != null && url.matches("https?://[^\\s/?#@\\\\]+(/[^\\s?#@\\\\]*[^\\s?#@\\\\/])?");
        }

        private static boolean isSecure(String url) {
            String host = Objects.toString(URI.create(url).getHost(), "");
            boolean isLoopback = host.equals("localhost") || host.equals("[::1]") || host.matches("127(\\.\\d{1,3}){3}");
            return url.startsWith("https:") || isLoopback;
        }
    }
}
