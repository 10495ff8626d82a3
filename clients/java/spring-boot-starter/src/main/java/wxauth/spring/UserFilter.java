package wxauth.spring;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import org.springframework.security.core.context.SecurityContext;
import org.springframework.security.core.context.SecurityContextHolder;
import wxauth.guard.WxauthRefusal;

/** Tells Spring Security's chain who sends a request. */
final class UserFilter implements Filter {
    private final Decisions decisions;
    private final boolean isBesideLogin;

    UserFilter(Decisions decisions, boolean isBesideLogin) {
        this.decisions = decisions;
        this.isBesideLogin = isBesideLogin;
    }

    @Override
    public void doFilter(ServletRequest any, ServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        HttpServletRequest request = (HttpServletRequest) any;
        WxauthAuthentication authentication;
        try {
            if (!isBesideLogin && request.getDispatcherType() == DispatcherType.REQUEST) {
                decisions.verify(Decisions.sent(request), request);
            }
            authentication = decisions.authentication(request);
        } catch (WxauthRefusal refusal) {
            decisions.refuse(refusal, request, (HttpServletResponse) response);
            return;
        }
        if (authentication != null) {
            SecurityContext context = SecurityContextHolder.createEmptyContext();
            context.setAuthentication(authentication);
            SecurityContextHolder.setContext(context);
        }
        chain.doFilter(request, response);
    }
}
