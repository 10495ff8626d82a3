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
import java.net.MalformedURLException;
import java.net.URI;
import java.net.URL;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpStatus;
import org.springframework.security.authentication.AuthenticationServiceException;
import org.springframework.security.config.annotation.method.configuration.EnableReactiveMethodSecurity;
import org.springframework.security.config.annotation.web.reactive.EnableWebFluxSecurity;
import org.springframework.security.config.web.server.SecurityWebFiltersOrder;
import org.springframework.security.config.web.server.ServerHttpSecurity;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.security.core.authority.SimpleGrantedAuthority;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.oauth2.core.OAuth2TokenValidatorResult;
import org.springframework.security.oauth2.jwt.MappedJwtClaimSetConverter;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.oauth2.jwt.ReactiveJwtDecoder;
import org.springframework.security.oauth2.server.resource.BearerTokenError;
import org.springframework.security.oauth2.server.resource.BearerTokenErrorCodes;
import org.springframework.security.oauth2.server.resource.authentication.ReactiveJwtAuthenticationConverter;
import org.springframework.security.web.server.SecurityWebFilterChain;
import org.springframework.security.web.server.authorization.HttpStatusServerAccessDeniedHandler;
import org.springframework.security.web.server.context.NoOpServerSecurityContextRepository;
import org.springframework.web.server.ServerWebExchange;
import org.springframework.web.server.WebFilterChain;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

@Configuration
@EnableWebFluxSecurity
@EnableReactiveMethodSecurity
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
    ReactiveJwtDecoder jwtDecoder(
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
        return text -> Mono.fromCallable(() -> {
                    var token = decoder.decode(text);
                    if (!websites && token.hasClaim("scope")) throw insufficientScope();
                    return token;
                })
                .subscribeOn(Schedulers.boundedElastic()); // because reading the keys blocks the thread
    }

    @Bean
    SecurityWebFilterChain security(ServerHttpSecurity http) {
        var user = new ReactiveJwtAuthenticationConverter();
        user.setJwtGrantedAuthoritiesConverter(token -> Flux.fromIterable(authorities(token.getClaims())));
        return http.securityContextRepository(NoOpServerSecurityContextRepository.getInstance())
                .csrf(ServerHttpSecurity.CsrfSpec::disable)
                .authorizeExchange(requests -> requests.anyExchange().authenticated())
                // Spring would announce a missing role as a missing scope, for which agents ask their users again.
                .oauth2ResourceServer(server -> server.jwt(jwt -> jwt.jwtAuthenticationConverter(user))
                        .accessDeniedHandler(new HttpStatusServerAccessDeniedHandler(HttpStatus.FORBIDDEN)))
                .addFilterBefore(Wxauth::answer503, SecurityWebFiltersOrder.AUTHENTICATION)
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

    /** Returns 503 if the keys of wxauth have never been read, because Spring would return 500. */
    private static Mono<Void> answer503(ServerWebExchange exchange, WebFilterChain chain) {
        return chain.filter(exchange).onErrorResume(AuthenticationServiceException.class, away -> {
            exchange.getResponse().getHeaders().set("Retry-After", "5");
            exchange.getResponse().setStatusCode(HttpStatus.SERVICE_UNAVAILABLE);
            return exchange.getResponse().setComplete();
        });
    }
}
