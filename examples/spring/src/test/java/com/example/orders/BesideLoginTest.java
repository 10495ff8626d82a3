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
        assertThat(nameWith("Bearer ours, of a website")).isNull();
        assertThat(nameWith("bearer ours")).isEqualTo("10023");
    }

    @Test
    void whileWxauthWasNeverReachedItsTokensAre503() throws Exception {
        var filter = new BesideLogin(
                token -> {
                    throw new JwtException("no keys");
                },
                token -> null);
        var request = new MockHttpServletRequest();
        request.addHeader("Authorization", "Bearer ours");
        var response = new MockHttpServletResponse();
        var chain = new MockFilterChain();
        filter.doFilter(request, response, chain);
        assertThat(response.getStatus()).isEqualTo(503);
        assertThat(chain.getRequest()).isNull();
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
                    if (!token.startsWith("ours")) throw new BadJwtException("another issuer");
                    var ours = Jwt.withTokenValue(token).header("alg", "ES256").claim("external_id", "10023");
                    return (token.equals("ours") ? ours : ours.claim("scope", "openid")).build();
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
