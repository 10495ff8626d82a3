package com.example.gateway;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWKSecurityContext;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import java.net.MalformedURLException;
import java.net.URI;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Objects;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpMethod;
import org.springframework.security.config.annotation.web.reactive.EnableWebFluxSecurity;
import org.springframework.security.config.web.server.ServerHttpSecurity;
import org.springframework.security.oauth2.core.DelegatingOAuth2TokenValidator;
import org.springframework.security.oauth2.core.OAuth2TokenValidator;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtIssuerValidator;
import org.springframework.security.oauth2.jwt.JwtTimestampValidator;
import org.springframework.security.oauth2.jwt.NimbusReactiveJwtDecoder;
import org.springframework.security.oauth2.jwt.ReactiveJwtDecoder;
import org.springframework.security.oauth2.server.resource.authentication.JwtGrantedAuthoritiesConverter;
import org.springframework.security.oauth2.server.resource.authentication.ReactiveJwtAuthenticationConverter;
import org.springframework.security.oauth2.server.resource.authentication.ReactiveJwtGrantedAuthoritiesConverterAdapter;
import org.springframework.security.web.server.SecurityWebFilterChain;
import org.springframework.security.web.server.context.NoOpServerSecurityContextRepository;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

@Configuration
@EnableWebFluxSecurity
class Wxauth {
    private static final String ISSUER = "https://auth.example.com";
    private static final String AUDIENCE = "wxauth";

    @Bean
    ReactiveJwtDecoder jwtDecoder() throws MalformedURLException {
        var type = new DefaultJOSEObjectTypeVerifier<JWKSecurityContext>(
                new JOSEObjectType("at+jwt"), new JOSEObjectType("application/at+jwt"));
        var keys = JWKSourceBuilder.<SecurityContext>create(
                        URI.create(ISSUER + "/.well-known/jwks.json").toURL(),
                        new DefaultResourceRetriever(1000, 1000, 256 * 1024))
                .outageTolerant(Duration.ofDays(1).toMillis())
                .build();
        var decoder = NimbusReactiveJwtDecoder.withJwkSource(token -> Mono
                        .fromCallable(() -> keys.get(new JWKSelector(
                                new JWKMatcher.Builder().keyID(token.getHeader().getKeyID()).build()), null))
                        .subscribeOn(Schedulers.boundedElastic()) // reading the keys blocks
                        .flatMapIterable(found -> found))
                .jwsAlgorithm(SignatureAlgorithm.ES256)
                .jwtProcessorCustomizer(processor -> processor.setJWSTypeVerifier(type))
                .build();
        var rules = new ArrayList<OAuth2TokenValidator<Jwt>>();
        rules.add(new JwtTimestampValidator(Duration.ofSeconds(30)));
        rules.add(new JwtIssuerValidator(ISSUER));
        rules.add(new JwtClaimValidator<Collection<String>>("aud",
                audience -> audience != null && audience.contains(AUDIENCE)));
        for (var claim : List.of("sub", "exp", "iat", "jti", "client_id", "sid", "openid")) {
            rules.add(new JwtClaimValidator<Object>(claim, Objects::nonNull));
        }
        decoder.setJwtValidator(new DelegatingOAuth2TokenValidator<>(rules));
        return decoder;
    }

    @Bean
    SecurityWebFilterChain security(ServerHttpSecurity http) {
        var roles = new JwtGrantedAuthoritiesConverter();
        roles.setAuthoritiesClaimName("roles");
        roles.setAuthorityPrefix("ROLE_");
        var user = new ReactiveJwtAuthenticationConverter();
        user.setJwtGrantedAuthoritiesConverter(new ReactiveJwtGrantedAuthoritiesConverterAdapter(roles));
        return http
                .securityContextRepository(NoOpServerSecurityContextRepository.getInstance())
                .csrf(ServerHttpSecurity.CsrfSpec::disable)
                .authorizeExchange(requests -> requests
                        .pathMatchers(HttpMethod.DELETE, "/orders/**").hasRole("clerk")
                        .anyExchange().authenticated())
                .oauth2ResourceServer(server -> server.jwt(jwt -> jwt.jwtAuthenticationConverter(user)))
                .build();
    }
}
