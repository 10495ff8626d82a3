package com.example.orders;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.KeySourceException;
import com.nimbusds.jose.jwk.Curve;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.KeyType;
import com.nimbusds.jose.jwk.KeyUse;
import com.nimbusds.jose.jwk.source.JWKSetCacheRefreshEvaluator;
import com.nimbusds.jose.jwk.source.JWKSetUnavailableException;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.jwk.source.RateLimitReachedException;
import com.nimbusds.jose.jwk.source.URLBasedJWKSetSource;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.BadJWTException;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URI;
import java.net.URL;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpStatus;
import org.springframework.security.authentication.AuthenticationServiceException;
import org.springframework.security.config.annotation.method.configuration.EnableMethodSecurity;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.security.core.authority.SimpleGrantedAuthority;
import org.springframework.security.oauth2.core.DefaultOAuth2AuthenticatedPrincipal;
import org.springframework.security.oauth2.core.OAuth2AccessToken;
import org.springframework.security.oauth2.core.OAuth2AuthenticatedPrincipal;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2TokenValidatorResult;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.MappedJwtClaimSetConverter;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.oauth2.server.resource.BearerTokenError;
import org.springframework.security.oauth2.server.resource.BearerTokenErrorCodes;
import org.springframework.security.oauth2.server.resource.authentication.BearerTokenAuthentication;
import org.springframework.security.oauth2.server.resource.authentication.JwtAuthenticationConverter;
import org.springframework.security.oauth2.server.resource.introspection.OpaqueTokenIntrospector;
import org.springframework.security.oauth2.server.resource.web.authentication.BearerTokenAuthenticationFilter;
import org.springframework.security.web.SecurityFilterChain;

@Configuration
@EnableMethodSecurity
class Wxauth {
    private static final JWKSelector ANY = new JWKSelector(new JWKMatcher.Builder().build());

    /**
     * The keys that wxauth publishes. A response without a usable key counts as a failure, because it might come from a
     * gateway, for example during maintenance.
     */
    private static final class Published extends URLBasedJWKSetSource<SecurityContext> {
        private static final JWKSelector USABLE = new JWKSelector(new JWKMatcher.Builder()
                .keyType(KeyType.EC)
                .curve(Curve.P_256)
                .hasKeyID(true)
                .keyUses(KeyUse.SIGNATURE, null)
                .algorithms(JWSAlgorithm.ES256, null)
                .build());

        private volatile long youngUntil = System.nanoTime();

        Published(URL url) {
            super(url, new DefaultResourceRetriever(1000, 1000, 256 * 1024));
        }

        /** wxauth publishes a key six minutes before it signs, so only keys older than that can lack one that signs. */
        boolean areYoung() {
            return System.nanoTime() - youngUntil < 0;
        }

        @Override
        public JWKSet getJWKSet(JWKSetCacheRefreshEvaluator evaluator, long now, SecurityContext context)
                throws KeySourceException {
            var keys = USABLE.select(super.getJWKSet(evaluator, now, context));
            if (keys.isEmpty()) throw new JWKSetUnavailableException("there is no usable key");
            youngUntil = System.nanoTime() + Duration.ofMinutes(5).toNanos();
            return new JWKSet(keys);
        }
    }

    @Bean
    JwtDecoder jwtDecoder(
            @Value("${WXAUTH_ISSUER:http://127.0.0.1:8000}") String issuer,
            @Value("${WXAUTH_AUDIENCE:wxauth}") String audience,
            @Value("${WXAUTH_WEBSITES:false}") boolean websites)
            throws MalformedURLException {
        var published = new Published(URI.create(issuer + "/.well-known/jwks.json").toURL());
        var read = JWKSourceBuilder.<SecurityContext>create(published)
                .outageTolerant(Duration.ofDays(1).toMillis())
                .build();
        var isLookedFor = new AtomicBoolean();
        JWKSource<SecurityContext> keys = (selector, context) -> {
            var known = selector.select(new JWKSet(read.get(ANY, context)));
            if (!known.isEmpty()) return known;
            // Only one request at a time looks for an unknown key. Otherwise, forged tokens could block all threads
            // while wxauth does not respond.
            if (isLookedFor.compareAndSet(false, true)) {
                try {
                    known = read.get(selector, context);
                } catch (RateLimitReachedException flooded) { // the keys in memory decide
                } finally {
                    isLookedFor.set(false);
                }
            }
            if (known.isEmpty() && !published.areYoung())
                throw new KeySourceException("the key might be newer than the keys in memory");
            return known;
        };
        var claims = new DefaultJWTClaimsVerifier<SecurityContext>(
                audience,
                new JWTClaimsSet.Builder().issuer(issuer).build(),
                Set.of("sub", "exp", "iat", "jti", "client_id", "sid", "openid"));
        claims.setMaxClockSkew(30);
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(
                new JOSEObjectType("at+jwt"), new JOSEObjectType("application/at+jwt")));
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
        processor.setJWTClaimsSetVerifier((found, context) -> {
            if (found.getClaims().containsValue(null)) throw new BadJWTException("a claim is null");
            claims.verify(found, context);
        });
        var decoder = new NimbusJwtDecoder(processor);
        decoder.setClaimSetConverter(Wxauth::withApp);
        decoder.setJwtValidator(token -> OAuth2TokenValidatorResult.success()); // the processor has checked everything
        return text -> {
            var token = decoder.decode(text);
            if (!websites && token.hasClaim("scope")) throw insufficientScope();
            return token;
        };
    }

    /** If `spring.security.oauth2.resourceserver.opaquetoken.introspection-uri` is set, wxauth checks each token. */
    @Bean
    SecurityFilterChain security(
            HttpSecurity http,
            Optional<OpaqueTokenIntrospector> wxauth,
            @Value("${WXAUTH_WEBSITES:false}") boolean websites)
            throws Exception {
        var user = new JwtAuthenticationConverter();
        user.setJwtGrantedAuthoritiesConverter(token -> authorities(token.getClaims()));
        return http.sessionManagement(session -> session.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
                .authorizeHttpRequests(requests -> requests.anyRequest().authenticated())
                .oauth2ResourceServer(server -> {
                    // Spring would announce a missing role as a missing scope, for which agents ask their users again.
                    server.accessDeniedHandler((request, response, denied) -> response.setStatus(403));
                    if (wxauth.isEmpty()) server.jwt(jwt -> jwt.jwtAuthenticationConverter(user));
                    else server.opaqueToken(opaque -> opaque.authenticationConverter((token, found) -> {
                        if (!websites && found.getAttributes().containsKey("scope")) throw insufficientScope();
                        return introspected(token, found);
                    }));
                })
                .addFilterBefore(Wxauth::answer503, BearerTokenAuthenticationFilter.class)
                .build();
    }

    /** Refuses the token of a website or an agent with status 403. */
    private static OAuth2AuthenticationException insufficientScope() {
        return new OAuth2AuthenticationException(new BearerTokenError(
                BearerTokenErrorCodes.INSUFFICIENT_SCOPE, HttpStatus.FORBIDDEN, null, null));
    }

    /**
     * Returns `ROLE_clerk` for the role "clerk", and `own` if the token is from your own app, not from a website.
     */
    static Collection<GrantedAuthority> authorities(Map<String, Object> claims) {
        var found = new ArrayList<GrantedAuthority>();
        if (claims.get("roles") instanceof List<?> roles)
            for (var role : roles) found.add(new SimpleGrantedAuthority("ROLE_" + role));
        if (!claims.containsKey("scope")) found.add(new SimpleGrantedAuthority("own"));
        return found;
    }

    /**
     * Adds `app_id`, the app in which the user has this openid, if it is missing. The token of a login in a
     * mini-program has no `app_id`, because its `client_id` is the app.
     */
    private static Map<String, Object> withApp(Map<String, Object> claims) {
        var all = MappedJwtClaimSetConverter.withDefaults(Map.of()).convert(claims);
        all.putIfAbsent("app_id", all.get("client_id"));
        return all;
    }

    private static BearerTokenAuthentication introspected(String token, OAuth2AuthenticatedPrincipal found) {
        var claims = new HashMap<>(found.getAttributes());
        claims.putIfAbsent("app_id", claims.get("client_id"));
        var user = new DefaultOAuth2AuthenticatedPrincipal(found.getName(), claims, List.of());
        var credentials = new OAuth2AccessToken(
                OAuth2AccessToken.TokenType.BEARER, token, user.getAttribute("iat"), user.getAttribute("exp"));
        return new BearerTokenAuthentication(user, credentials, authorities(user.getAttributes()));
    }

    /** Returns 503 if the keys of wxauth have never been read, because Spring would return 401. */
    private static void answer503(ServletRequest request, ServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        try {
            chain.doFilter(request, response);
        } catch (AuthenticationServiceException away) {
            ((HttpServletResponse) response).setHeader("Retry-After", "5");
            ((HttpServletResponse) response).setStatus(503);
        }
    }
}
