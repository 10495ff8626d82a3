package wxauth.guard;

import java.nio.ByteBuffer;
import java.security.SecureRandom;
import java.util.Collections;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The reason for refusing a request. */
public final class WxauthRefusal extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final String INVALID = "Bearer error=\"invalid_token\"";
    private static final Map<String, Kind> KINDS = kinds();
    private static final SecureRandom RANDOM = new SecureRandom();
    private static final Pattern LANGUAGE_RANGE = Pattern.compile(
            "\\s*(zh|en)(?:[-_][a-z0-9_-]*)?\\s*(?:;\\s*q\\s*=\\s*([01](?:\\.\\d{0,3})?)\\s*)?", Pattern.CASE_INSENSITIVE);

    private static final Pattern OTHER_LANGUAGE = Pattern.compile("\\bLanguage/(?!zh)");
    private static final int MOST_SHOWN = 200; // characters of a value in the log

    private final String code;
    private final String logged;
    private final boolean isOutage;

    private static final class Kind {
        private final int status;
        private final String english;
        private final String chinese;
        private final String challenge;

        Kind(int status, String english, String chinese, String challenge) {
            this.status = status;
            this.english = english;
            this.chinese = chinese;
            this.challenge = challenge;
        }
    }

    private static Map<String, Kind> kinds() {
        Kind away = new Kind(503, "The login service can't be reached. Please try again.", "暂时无法验证登录，请稍后再试。", null);
        Map<String, Kind> kinds = new HashMap<>();
        kinds.put("missing_token", new Kind(401, "Please log in.", "请先登录。", "Bearer"));
        kinds.put(
                "invalid_token",
                new Kind(401, "Your login is no longer valid. Please log in again.", "登录已失效，请重新登录。", INVALID));
        kinds.put("token_expired", new Kind(401, "Your login has expired. Please log in again.", "登录已过期，请重新登录。", INVALID));
        kinds.put(
                "session_revoked", new Kind(401, "You have been logged out. Please log in again.", "你已退出登录，请重新登录。", INVALID));
        kinds.put("insufficient_role", new Kind(403, "You don't have permission to do this.", "你没有权限进行此操作。", null));
        kinds.put(
                "insufficient_scope",
                new Kind(
                        403,
                        "Your credentials don't have permission to do this.",
                        "当前凭据无权进行此操作。",
                        "Bearer error=\"insufficient_scope\""));
        kinds.put("keys_unavailable", away);
        kinds.put("verification_unavailable", away);
        return Collections.unmodifiableMap(kinds);
    }

    /** The code is one of wxauth's codes, and the detail is for the developer. A test may throw such a refusal. */
    public WxauthRefusal(String code, String detail) {
        this(code, detail, null, false);
    }

    /** The log line is null if a refusal tells the operator nothing. */
    WxauthRefusal(String code, String detail, String logged, boolean isOutage) {
        super(detail, null, false, false); // without a stack trace, because strangers cause refusals
        if (!KINDS.containsKey(code)) {
            throw new IllegalArgumentException("no code: " + code);
        }
        this.code = code;
        this.logged = logged;
        this.isOutage = isOutage;
    }

    static WxauthRefusal invalidToken(String detail) {
        return new WxauthRefusal("invalid_token", detail);
    }

    static WxauthRefusal invalidToken(String detail, String cause) {
        return new WxauthRefusal("invalid_token", detail, "a token was refused: " + cause, false);
    }

    /** Returns a value for the log, shortened, and escaped because a kid is read before the signature is checked. */
    static String shown(Object value) {
        String text = String.valueOf(value).replaceAll("[^\\x20-\\x7e]", "?");
        return "'" + text.substring(0, Math.min(text.length(), MOST_SHOWN)) + "'";
    }

    /** Returns 401, 403 or 503. */
    public int status() {
        return KINDS.get(code).status;
    }

    /** Returns one of wxauth's codes, for example "token_expired". */
    public String code() {
        return code;
    }

    /** Returns the value of WWW-Authenticate, or null. */
    public String challenge() {
        return KINDS.get(code).challenge;
    }

    /** Returns the message for the user. `acceptLanguage` is a header, or null. */
    public String title(String acceptLanguage) {
        return prefersChinese(acceptLanguage) ? KINDS.get(code).chinese : KINDS.get(code).english;
    }

    /** Returns a problem document (RFC 9457), for the content type application/problem+json. */
    public String problem(String acceptLanguage) {
        byte[] random = new byte[16];
        RANDOM.nextBytes(random);
        ByteBuffer id = ByteBuffer.wrap(random);
        return String.format(
                Locale.ROOT,
                "{\"type\":\"urn:wxauth:problem:%s\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\",\"code\":\"%s\","
                        + "\"request_id\":\"%016x%016x\"}",
                code,
                title(acceptLanguage),
                status(),
                getMessage().replace("\\", "\\\\").replace("\"", "\\\""),
                code,
                id.getLong(),
                id.getLong());
    }

    String logged() {
        return logged;
    }

    /**
     * Returns the Accept-Language header, or the language of WeChat, whose `wx.request` sends no such header. Both headers
     * may be null.
     */
    public static String language(String acceptLanguage, String userAgent) {
        boolean isGiven = acceptLanguage != null && !acceptLanguage.replaceAll("[* ]", "").isEmpty();
        boolean isChineseWechat = userAgent != null
                && userAgent.contains("MicroMessenger")
                && !OTHER_LANGUAGE.matcher(userAgent).find();
        return !isGiven && isChineseWechat ? "zh" : acceptLanguage;
    }

    boolean isOutage() {
        return isOutage;
    }

    private static boolean prefersChinese(String acceptLanguage) {
        double chinese = 0;
        double english = 0;
        if (acceptLanguage == null) {
            return false;
        }
        String[] ranges = acceptLanguage.substring(0, Math.min(acceptLanguage.length(), 1024)).split(",");
        for (int position = 0; position < ranges.length; position++) {
            Matcher range = LANGUAGE_RANGE.matcher(ranges[position]);
            double quality = 0;
            if (range.matches()) {
                quality = range.group(2) == null ? 1 : Double.parseDouble(range.group(2));
            }
            if (quality > 0) {
                double rank = quality - position / 1e6; // of two equal ones, the first counts
                if (range.group(1).equalsIgnoreCase("zh")) {
                    chinese = Math.max(chinese, rank);
                } else {
                    english = Math.max(english, rank);
                }
            }
        }
        return chinese > english;
    }
}
