package wxauth.guard;

import java.security.Principal;
import java.util.Collections;
import java.util.List;
import java.util.Map;

/** The user behind a valid token. */
public final class WxauthUser implements Principal {
    private final Map<String, Object> claims;
    private final String id;
    private final String sessionId;
    private final String clientId;
    private final String appId;
    private final String openid;
    private final String externalId;
    private final List<String> roles;
    private final List<String> scope;
    private final Boolean isCurrent;
    private final String phone;

    WxauthUser(
            Map<String, Object> claims,
            String id,
            String sessionId,
            String clientId,
            String appId,
            String openid,
            String externalId,
            List<String> roles,
            List<String> scope,
            Boolean isCurrent,
            String phone) {
        this.claims = Collections.unmodifiableMap(claims);
        this.id = id;
        this.sessionId = sessionId;
        this.clientId = clientId;
        this.appId = appId;
        this.openid = openid;
        this.externalId = externalId;
        this.roles = Collections.unmodifiableList(roles);
        this.scope = Collections.unmodifiableList(scope);
        this.isCurrent = isCurrent;
        this.phone = phone;
    }

    WxauthUser with(List<String> currentRoles, boolean isConfirmed) {
        return new WxauthUser(
                claims, id, sessionId, clientId, appId, openid, externalId, currentRoles, scope, isConfirmed, phone);
    }

    WxauthUser with(String verifiedPhone) {
        return new WxauthUser(
                claims, id, sessionId, clientId, appId, openid, externalId, roles, scope, isCurrent, verifiedPhone);
    }

    /** Returns a UUID, the key of your own data. */
    public String id() {
        return id;
    }

    /** Returns a UUID, one for each login on a device. */
    public String sessionId() {
        return sessionId;
    }

    /** Returns the AppID of the user's app, or the client of a website or an agent. */
    public String clientId() {
        return clientId;
    }

    /** Returns the app in which the user has this openid. */
    public String appId() {
        return appId;
    }

    public String openid() {
        return openid;
    }

    /** Returns the user's ID in the system from which they were imported, or null. */
    public String externalId() {
        return externalId;
    }

    public List<String> roles() {
        return roles;
    }

    public boolean hasRole(String role) {
        return roles.contains(role);
    }

    /** Returns the scopes of a website or an agent. */
    public List<String> scope() {
        return scope;
    }

    /** Returns all claims. Numbers are of the type Double. */
    public Map<String, Object> claims() {
        return claims;
    }

    /** Returns whether wxauth has confirmed the session a moment ago, or null if it was not asked. */
    public Boolean isCurrent() {
        return isCurrent;
    }

    /** Returns a number such as +8613800138000, which wxauth tells only if it is asked by `WxauthGuard.me`, or null. */
    public String phone() {
        return phone;
    }

    /** Returns the ID. */
    @Override
    public String getName() {
        return id;
    }
}
