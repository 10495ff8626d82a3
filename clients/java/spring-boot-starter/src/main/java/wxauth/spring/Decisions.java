package wxauth.spring;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.http.HttpServletMapping;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.MappingMatch;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.List;
import java.util.function.Supplier;
import org.springframework.http.ResponseEntity;
import org.springframework.http.server.PathContainer;
import org.springframework.http.server.RequestPath;
import org.springframework.web.util.ServletRequestPathUtils;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.WxauthUser;

/** Decides about the requests to a servlet application. */
final class Decisions {
    private static final String DISPATCHER = "dispatcherServlet"; // as Spring Boot names it
    private static final String ME = Decisions.class.getName() + ".ME";
    private static final String OPEN = Decisions.class.getName() + ".OPEN";
    private static final String DECIDED = Decisions.class.getName() + ".DECIDED";

    private final WxauthGuard guard;
    private final WxauthRefusals refusals;
    private final Rules rules;

    Decisions(WxauthGuard guard, WxauthRefusals refusals, Rules rules) {
        this.guard = guard.optional();
        this.refusals = refusals;
        this.rules = rules;
    }

    /** Returns the path as Spring's dispatcher matches it. Another servlet's begins with that servlet's own part. */
    private static PathContainer path(HttpServletRequest request) {
        HttpServletMapping mapping = request.getHttpServletMapping();
        if (mapping.getMappingMatch() == MappingMatch.PATH && !DISPATCHER.equals(mapping.getServletName())) {
            return RequestPath.parse(request.getRequestURI(), request.getContextPath()).pathWithinApplication();
        }
        if (ServletRequestPathUtils.hasParsedRequestPath(request)) {
            return ServletRequestPathUtils.getParsedRequestPath(request).pathWithinApplication();
        }
        try {
            return ServletRequestPathUtils.parseAndCache(request).pathWithinApplication();
        } finally {
            ServletRequestPathUtils.clearParsedRequestPath(request); // the dispatcher parses for itself
        }
    }

    /** Also returns true for the container's later dispatches of such a request, for example to the page of an error. */
    boolean isOpen(HttpServletRequest request) {
        boolean isFirst = request.getDispatcherType() == DispatcherType.REQUEST;
        if (isFirst && rules.isOpen(request.getMethod(), path(request))) {
            request.setAttribute(OPEN, true);
        }
        return request.getAttribute(OPEN) != null;
    }

    static List<String> sent(HttpServletRequest request) {
        return Collections.list(request.getHeaders(Rules.HEADER));
    }

    boolean isForThisGuard(List<String> sent) {
        return sent.stream().anyMatch(guard::isForThisGuard);
    }

    /** Remembers the user of these headers in the request, if there is one. */
    void verify(List<String> sent, HttpServletRequest request) {
        String authorization = Rules.only(sent);
        WxauthUser user = guard.verify(authorization);
        if (user != null) {
            request.setAttribute(Rules.USER, user);
            request.setAttribute(ME, (Supplier<WxauthUser>) () -> guard.me(authorization));
        }
    }

    /** Returns who sends the request, or null. The container's later dispatches of the request have the same. */
    WxauthAuthentication authentication(HttpServletRequest request) {
        WxauthAuthentication decided = (WxauthAuthentication) request.getAttribute(DECIDED);
        WxauthUser user = (WxauthUser) request.getAttribute(Rules.USER);
        if (decided != null || user == null) {
            return decided;
        }
        // After the first dispatch, the project's look-up has failed, and its error's page needs no row.
        boolean isFirst = request.getDispatcherType() == DispatcherType.REQUEST;
        decided = new WxauthAuthentication(user, isFirst ? principal(user, request) : user);
        request.setAttribute(DECIDED, decided);
        return decided;
    }

    @SuppressWarnings("unchecked")
    private Object principal(WxauthUser user, HttpServletRequest request) {
        Supplier<WxauthUser> me = (Supplier<WxauthUser>) request.getAttribute(ME);
        return rules.principal(user, request.getMethod(), path(request), me);
    }

    void refuse(WxauthRefusal refusal, HttpServletRequest request, HttpServletResponse response) throws IOException {
        String language =
                WxauthRefusal.language(request.getHeader("Accept-Language"), request.getHeader("User-Agent"));
        ResponseEntity<String> refused = refusals.response(refusal, language);
        response.setStatus(refused.getStatusCode().value());
        refused.getHeaders().forEach((name, values) -> values.forEach(value -> response.addHeader(name, value)));
        if (refused.getBody() != null) {
            response.getOutputStream().write(refused.getBody().getBytes(StandardCharsets.UTF_8));
        }
    }
}
