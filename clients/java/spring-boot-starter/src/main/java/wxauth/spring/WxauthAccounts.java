package wxauth.spring;

import wxauth.guard.WxauthUser;

/**
 * Leads from a user of wxauth to a row of the project. The bean of this type makes the principal of each request. Both
 * methods can throw a `WxauthRefusal`, for example for a user whom the project itself has banned.
 *
 * @param <A> the principal, for example the framework's own class of users
 */
public interface WxauthAccounts<A> {
    /** Returns the user with this `user.id()`, or null. Called for each request. */
    A find(WxauthUser user);

    /**
     * Claims the row of a user who was there before (by `externalId()`, `openid()` or `phone()`), or inserts one. Called
     * on the route `wxauth.login-path` alone, if `find` returns null, in a transaction, once for simultaneous requests of
     * a user. If another replica was faster, so that this fails or returns null, `find` is called again, and then this method.
     */
    A claimOrInsert(WxauthUser user);
}
