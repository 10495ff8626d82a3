package com.example.orders;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
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
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.oauth2.core.DelegatingOAuth2TokenValidator;
import org.springframework.security.oauth2.core.OAuth2TokenValidator;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtIssuerValidator;
import org.springframework.security.oauth2.jwt.JwtTimestampValidator;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.oauth2.server.resource.authentication.JwtAuthenticationConverter;
import org.springframework.security.oauth2.server.resource.authentication.JwtGrantedAuthoritiesConverter;
import org.springframework.security.web.SecurityFilterChain;

@Configuration
class Wxauth {
    private static final String ISSUER = "https://auth.example.com";
    private static final String AUDIENCE = "wxauth";

    @Bean
    JwtDecoder jwtDecoder() throws MalformedURLException {
        var type = new DefaultJOSEObjectTypeVerifier<SecurityContext>(
                new JOSEObjectType("at+jwt"), new JOSEObjectType("application/at+jwt"));
        var keys = JWKSourceBuilder.<SecurityContext>create(
                        URI.create(ISSUER + "/.well-known/jwks.json").toURL(),
                        new DefaultResourceRetriever(1000, 1000, 256 * 1024))
                .outageTolerant(Duration.ofDays(1).toMillis())
                .build();
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSTypeVerifier(type);
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
        processor.setJWTClaimsSetVerifier((claims, context) -> {}); // the rules below check them
        var decoder = new NimbusJwtDecoder(processor);
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
    SecurityFilterChain security(HttpSecurity http) throws Exception {
        var roles = new JwtGrantedAuthoritiesConverter();
        roles.setAuthoritiesClaimName("roles");
        roles.setAuthorityPrefix("ROLE_");
        var user = new JwtAuthenticationConverter();
        user.setJwtGrantedAuthoritiesConverter(roles);
        return http
                .sessionManagement(session -> session.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
                .authorizeHttpRequests(requests -> requests
                        .requestMatchers(HttpMethod.DELETE, "/orders/**").hasRole("clerk")
                        .anyRequest().authenticated())
                .oauth2ResourceServer(server -> server.jwt(jwt -> jwt.jwtAuthenticationConverter(user)))
                .build();
    }
}
