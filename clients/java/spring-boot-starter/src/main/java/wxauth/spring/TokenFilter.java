package wxauth.spring;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.Collections;
import java.util.Enumeration;
import java.util.List;
import org.springframework.security.web.csrf.CsrfFilter;
import wxauth.guard.WxauthRefusal;

/**
 * Stands before all other filters beside another login. It decides about wxauth's tokens alone, and takes them out of
 * the request, also for the container's later dispatches.
 */
final class TokenFilter implements Filter {
    private static final String TAKEN = TokenFilter.class.getName() + ".TAKEN";

    private final Decisions decisions;

    TokenFilter(Decisions decisions) {
        this.decisions = decisions;
    }

    private static final class WithoutToken extends HttpServletRequestWrapper {
        WithoutToken(HttpServletRequest request) {
            super(request);
        }

        @Override
        public String getHeader(String name) {
            return Rules.HEADER.equalsIgnoreCase(name) ? null : super.getHeader(name);
        }

        @Override
        public Enumeration<String> getHeaders(String name) {
            return Rules.HEADER.equalsIgnoreCase(name) ? Collections.emptyEnumeration() : super.getHeaders(name);
        }

        @Override
        public Enumeration<String> getHeaderNames() {
            List<String> names = Collections.list(super.getHeaderNames());
            names.removeIf(Rules.HEADER::equalsIgnoreCase);
            return Collections.enumeration(names);
        }
    }

    @Override
    public void doFilter(ServletRequest any, ServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        HttpServletRequest request = (HttpServletRequest) any;
        if (request.getDispatcherType() == DispatcherType.REQUEST && request.getAttribute(TAKEN) == null) {
            List<String> sent = Decisions.sent(request);
            if (decisions.isForThisGuard(sent)) {
                try {
                    decisions.verify(sent, request);
                } catch (WxauthRefusal refusal) {
                    decisions.refuse(refusal, request, (HttpServletResponse) response);
                    return;
                }
                request.setAttribute(TAKEN, true);
                if (request.getHeader("Cookie") == null) {
                    CsrfFilter.skipRequest(request); // another website could make no browser send this request
                }
            }
        }
        chain.doFilter(request.getAttribute(TAKEN) == null ? request : new WithoutToken(request), response);
    }
}
