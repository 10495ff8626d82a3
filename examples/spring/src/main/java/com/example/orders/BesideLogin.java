package com.example.orders;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.Set;
import java.util.function.Function;
import org.springframework.security.core.Authentication;
import org.springframework.security.core.context.SecurityContextHolder;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.jwt.BadJwtException;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtException;
import org.springframework.web.filter.OncePerRequestFilter;

/**
 * Accepts tokens of wxauth next to the login of a framework such as RuoYi or yudao. This filter runs before the
 * framework's own filter, and logs in users who send a token of wxauth.
 */
public class BesideLogin extends OncePerRequestFilter {
    private final JwtDecoder wxauth;
    private final Function<Jwt, Authentication> user; // returns the framework's login for the id in "external_id"
    private final Set<String> leftAlone;

    /**
     * Creates the filter, which ignores the paths `leftAlone`. A route that binds an account verifies the token itself.
     */
    public BesideLogin(JwtDecoder wxauth, Function<Jwt, Authentication> user, String... leftAlone) {
        this.wxauth = wxauth;
        this.user = user;
        this.leftAlone = Set.of(leftAlone);
    }

    @Override
    protected boolean shouldNotFilter(HttpServletRequest request) {
        return leftAlone.contains(request.getServletPath());
    }

    @Override
    protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
            throws ServletException, IOException {
        var given = request.getHeader("Authorization");
        if (given != null && given.regionMatches(true, 0, "Bearer ", 0, 7)) {
            try {
                SecurityContextHolder.getContext().setAuthentication(user.apply(wxauth.decode(given.substring(7).trim())));
            } catch (OAuth2AuthenticationException other) { // the token of a website or an agent
                response.setHeader("WWW-Authenticate", "Bearer error=\"insufficient_scope\"");
                response.setStatus(403);
                return;
            } catch (BadJwtException theirs) { // the token is not from wxauth, so the framework's own filter checks it
            } catch (JwtException away) { // the keys of wxauth have never been read
                response.setHeader("Retry-After", "5");
                response.setStatus(503);
                return;
            }
        }
        chain.doFilter(request, response);
    }
}
