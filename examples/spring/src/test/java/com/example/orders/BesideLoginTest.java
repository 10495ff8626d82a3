package com.example.orders;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.mock.web.MockFilterChain;
import org.springframework.mock.web.MockHttpServletRequest;
import org.springframework.mock.web.MockHttpServletResponse;
import org.springframework.security.authentication.UsernamePasswordAuthenticationToken;
import org.springframework.security.core.context.SecurityContextHolder;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.jwt.BadJwtException;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtException;

class BesideLoginTest {
    @AfterEach
    void logOut() {
        SecurityContextHolder.clearContext();
    }

    @Test
    void onlyTokensOfWxauthLogIn() throws Exception {
        assertThat(nameWith("Bearer theirs")).isNull();
        assertThat(nameWith(null)).isNull();
        assertThat(nameWith("bearer ours")).isEqualTo("10023");
    }

    @Test
    void whileWxauthWasNeverReachedItsTokensAre503() throws Exception {
        assertThat(refusalAfter(new JwtException("no keys")).getStatus()).isEqualTo(503);
    }

    @Test
    void tokensOfWebsitesAre403() throws Exception {
        var refusal = refusalAfter(new OAuth2AuthenticationException("insufficient_scope"));
        assertThat(refusal.getStatus()).isEqualTo(403);
        assertThat(refusal.getHeader("WWW-Authenticate")).isEqualTo("Bearer error=\"insufficient_scope\"");
    }

    private static MockHttpServletResponse refusalAfter(RuntimeException thrown) throws Exception {
        var filter = new BesideLogin(
                token -> {
                    throw thrown;
                },
                token -> null);
        var request = new MockHttpServletRequest();
        request.addHeader("Authorization", "Bearer ours");
        var response = new MockHttpServletResponse();
        var chain = new MockFilterChain();
        filter.doFilter(request, response, chain);
        assertThat(chain.getRequest()).isNull();
        return response;
    }

    @Test
    void aPathThatIsLeftAloneMakesNoUser() throws Exception {
        assertThat(nameWith("Bearer ours", "/bind")).isNull();
        assertThat(nameWith("Bearer ours", "/bind/other")).isEqualTo("10023");
    }

    private static String nameWith(String authorization) throws Exception {
        return nameWith(authorization, "/orders");
    }

    private static String nameWith(String authorization, String path) throws Exception {
        var filter = new BesideLogin(
                token -> {
                    if (!token.equals("ours")) throw new BadJwtException("another issuer");
                    return Jwt.withTokenValue(token)
                            .header("alg", "ES256")
                            .claim("external_id", "10023")
                            .build();
                },
                token -> UsernamePasswordAuthenticationToken.authenticated(
                        token.getClaimAsString("external_id"), null, List.of()),
                "/bind");
        var request = new MockHttpServletRequest();
        request.setServletPath(path);
        if (authorization != null) request.addHeader("Authorization", authorization);
        var chain = new MockFilterChain();
        filter.doFilter(request, new MockHttpServletResponse(), chain);
        assertThat(chain.getRequest()).isSameAs(request);
        var user = SecurityContextHolder.getContext().getAuthentication();
        return user == null ? null : user.getName();
    }
}
