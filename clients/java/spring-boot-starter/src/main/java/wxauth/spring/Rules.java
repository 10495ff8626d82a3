package wxauth.spring;

import java.util.List;
import java.util.function.Supplier;
import org.springframework.http.server.PathContainer;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.WxauthUser;

/** What the settings say about a request. */
final class Rules {
    static final String HEADER = "Authorization";
    /** The request's attribute with the user, which controllers take with `@RequestAttribute WxauthUser wxauth`. */
    static final String USER = "wxauth";

    private final Paths openPaths;
    private final Paths loginPath;
    private final Accounts accounts;

    /** `accounts` is null if the project has no rows of its own. */
    Rules(Paths openPaths, Paths loginPath, Accounts accounts) {
        this.openPaths = openPaths;
        this.loginPath = loginPath;
        this.accounts = accounts;
    }

    boolean isOpen(String method, PathContainer path) {
        return openPaths.matches(method, path);
    }

    static String only(List<String> sent) {
        if (sent.size() > 1) {
            throw new WxauthRefusal("invalid_token", "send one Authorization header");
        }
        return sent.isEmpty() ? null : sent.get(0);
    }

    /** Returns the project's user or, without rows, wxauth's. `me` asks wxauth for the phone number. */
    Object principal(WxauthUser user, String method, PathContainer path, Supplier<WxauthUser> me) {
        if (accounts == null) {
            return user;
        }
        if (loginPath.matches(method, path)) {
            return accounts.claimed(user, me);
        }
        Object account = accounts.found(user);
        if (account == null && !isOpen(method, path)) {
            throw new WxauthRefusal("insufficient_role", "this user has no row here yet: call wxauth.login-path first");
        }
        return account == null ? user : account;
    }

    static WxauthRefusal missing() {
        return new WxauthRefusal("missing_token", "send the access token as 'Authorization: Bearer ...'");
    }

    static WxauthRefusal withoutRole() {
        return new WxauthRefusal("insufficient_role", "this request requires a role that the user lacks");
    }
}
