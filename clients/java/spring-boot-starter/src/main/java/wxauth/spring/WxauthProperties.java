package wxauth.spring;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.springframework.beans.factory.ListableBeanFactory;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.context.properties.ConfigurationProperties;
import org.springframework.web.util.pattern.PathPatternParser;
import wxauth.guard.WxauthGuard;

/** The settings that start with "wxauth." in application.properties. */
@ConfigurationProperties("wxauth")
public class WxauthProperties {
    private String issuer;
    private String audience = "wxauth";
    private String internalUrl;
    private boolean websites;
    private boolean current;
    private boolean orOffline;
    private boolean besideLogin;
    private List<String> openPaths = new ArrayList<>();
    private String loginPath;

    /** Sets wxauth's setting ISSUER. */
    public void setIssuer(String issuer) {
        this.issuer = issuer;
    }

    public void setAudience(String audience) {
        this.audience = audience;
    }

    /** Sets wxauth's address in your own network. */
    public void setInternalUrl(String internalUrl) {
        this.internalUrl = internalUrl;
    }

    /** Also admits the tokens of websites and agents. */
    public void setWebsites(boolean websites) {
        this.websites = websites;
    }

    /** Asks wxauth about each token, so that a ban counts at once. */
    public void setCurrent(boolean current) {
        this.current = current;
    }

    /** Admits valid tokens while wxauth, which `current` asks, is away. */
    public void setOrOffline(boolean orOffline) {
        this.orOffline = orOffline;
    }

    /** Leaves all tokens but wxauth's to the project's own login. */
    public void setBesideLogin(boolean besideLogin) {
        this.besideLogin = besideLogin;
    }

    boolean isBesideLogin() {
        return besideLogin;
    }

    /** Sets the paths for guests, such as "/goods/{id}" or "POST /call-backs/**". */
    public void setOpenPaths(List<String> openPaths) {
        this.openPaths = openPaths;
    }

    /** Sets the only route that may insert a row by `WxauthAccounts`, such as "POST /login". */
    public void setLoginPath(String loginPath) {
        this.loginPath = loginPath;
    }

    WxauthGuard guard() {
        if (issuer == null) {
            throw new IllegalStateException("set wxauth.issuer to the setting ISSUER of wxauth");
        }
        WxauthGuard.Builder builder = WxauthGuard.builder(issuer).audience(audience);
        if (internalUrl != null) {
            builder.internalUrl(internalUrl);
        }
        if (websites) {
            builder.websites();
        }
        if (orOffline) {
            builder.orOffline();
        }
        return current ? builder.build().current() : builder.build();
    }

    Rules rules(ObjectProvider<WxauthAccounts<?>> accounts, ListableBeanFactory beans, PathPatternParser parser) {
        WxauthAccounts<?> own = accounts.getIfAvailable();
        if ((loginPath == null) != (own == null)) {
            throw new IllegalStateException("wxauth.login-path needs a bean WxauthAccounts, and the bean needs the path");
        }
        List<String> login = loginPath == null ? Collections.emptyList() : Collections.singletonList(loginPath);
        return new Rules(
                new Paths("wxauth.open-paths", openPaths, parser),
                new Paths("wxauth.login-path", login, parser),
                own == null ? null : new Accounts(own, beans));
    }
}
