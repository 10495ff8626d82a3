package wxauth.spring;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import org.springframework.security.authentication.AbstractAuthenticationToken;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.security.core.Transient;
import org.springframework.security.core.authority.SimpleGrantedAuthority;
import org.springframework.security.core.userdetails.UserDetails;
import wxauth.guard.WxauthUser;

/** The user of one request. It is transient, so that no HTTP session outlives the token. */
@Transient
final class WxauthAuthentication extends AbstractAuthenticationToken {
    private static final long serialVersionUID = 1;

    private final transient Object principal;

    WxauthAuthentication(WxauthUser user, Object principal) {
        super(authorities(user, principal));
        this.principal = principal;
        setDetails(user);
        setAuthenticated(true);
    }

    /** Returns `ROLE_clerk` for the role "clerk", and `own` if the token is from an own app, not from a website. */
    private static Collection<GrantedAuthority> authorities(WxauthUser user, Object principal) {
        List<GrantedAuthority> authorities = new ArrayList<>();
        for (String role : user.roles()) {
            authorities.add(new SimpleGrantedAuthority("ROLE_" + role));
        }
        if (!user.claims().containsKey("scope")) {
            authorities.add(new SimpleGrantedAuthority("own"));
        }
        if (principal instanceof UserDetails && ((UserDetails) principal).getAuthorities() != null) {
            authorities.addAll(((UserDetails) principal).getAuthorities());
        }
        return authorities;
    }

    @Override
    public Object getCredentials() {
        return null;
    }

    @Override
    public Object getPrincipal() {
        return principal;
    }
}
