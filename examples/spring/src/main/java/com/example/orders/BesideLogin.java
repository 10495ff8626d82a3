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
import org.springframework.security.oauth2.jwt.BadJwtException;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtException;
import org.springframework.web.filter.OncePerRequestFilter;

/** Beside the login of RuoYi, yudao and the like: before their own filter, it logs in who has wxauth's token. */
public class BesideLogin extends OncePerRequestFilter {
    private final JwtDecoder wxauth;
    private final Function<Jwt, Authentication> user; // theirs, with the id in "external_id"
    private final Set<String> leftAlone;

    /** The paths left alone, such as that of a route that binds an account, verify the token themselves. */
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
                var token = wxauth.decode(given.substring(7).trim());
                if (!token.hasClaim("scope")) // a website's or an agent's logs in nobody
                    SecurityContextHolder.getContext().setAuthentication(user.apply(token));
            } catch (BadJwtException theirs) { // their own filter reads it
            } catch (JwtException away) { // wxauth's keys have never been read
                response.setHeader("Retry-After", "5");
                response.setStatus(503);
                return;
            }
        }
        chain.doFilter(request, response);
    }
}
