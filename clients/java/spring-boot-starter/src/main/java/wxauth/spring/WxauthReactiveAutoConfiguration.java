package wxauth.spring;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.springframework.beans.factory.ListableBeanFactory;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.AutoConfigureOrder;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Import;
import org.springframework.core.Ordered;
import org.springframework.http.server.reactive.ServerHttpRequest;
import org.springframework.http.server.reactive.ServerHttpResponse;
import org.springframework.security.authentication.ReactiveAuthenticationManager;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.method.configuration.EnableReactiveMethodSecurity;
import org.springframework.security.config.annotation.web.reactive.EnableWebFluxSecurity;
import org.springframework.security.config.web.server.SecurityWebFiltersOrder;
import org.springframework.security.config.web.server.ServerHttpSecurity;
import org.springframework.security.core.context.ReactiveSecurityContextHolder;
import org.springframework.security.web.server.SecurityWebFilterChain;
import org.springframework.security.web.server.context.NoOpServerSecurityContextRepository;
import org.springframework.security.web.server.util.matcher.ServerWebExchangeMatcher.MatchResult;
import org.springframework.web.cors.reactive.CorsUtils;
import org.springframework.web.server.ServerWebExchange;
import org.springframework.web.server.WebFilterChain;
import org.springframework.web.util.pattern.PathPatternParser;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.WxauthUser;

/** Guards every route of a reactive application. */
@AutoConfiguration
@AutoConfigureOrder(Ordered.HIGHEST_PRECEDENCE) // before each configuration that makes a chain if there is none
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.REACTIVE)
@EnableConfigurationProperties(WxauthProperties.class)
@EnableWebFluxSecurity
@EnableReactiveMethodSecurity
@Import(WxauthBeans.class)
public class WxauthReactiveAutoConfiguration {
    private static final String CHAIN = "wxauthChain";
    private static final Object GUEST = new Object();

    @Bean(CHAIN)
    SecurityWebFilterChain wxauthChain(
            ServerHttpSecurity http,
            WxauthProperties settings,
            WxauthGuard guard,
            WxauthRefusals refusals,
            ObjectProvider<WxauthAccounts<?>> accounts,
            ListableBeanFactory beans) {
        for (String name : beans.getBeanNamesForType(SecurityWebFilterChain.class)) {
            if (!name.equals(CHAIN)) {
                throw new IllegalStateException("this project's SecurityWebFilterChain '" + name + "' would decide"
                        + " before wxauth: remove it");
            }
        }
        if (settings.isBesideLogin()) {
            throw new IllegalStateException("wxauth.beside-login is for servlets. Verify tokens by the WxauthGuard");
        }
        Rules rules = settings.rules(accounts, beans, new PathPatternParser());
        return http.cors(Customizer.withDefaults())
                .csrf(csrf -> csrf.disable()) // no cookie admits a request
                .logout(logout -> logout.disable())
                .requestCache(cache -> cache.disable())
                .securityContextRepository(NoOpServerSecurityContextRepository.getInstance())
                .addFilterAfter(
                        (exchange, chain) -> filter(guard.optional(), rules, refusals, exchange, chain),
                        SecurityWebFiltersOrder.CORS)
                .authorizeExchange(requests -> requests.matchers(
                                exchange -> isOpen(rules, exchange) ? MatchResult.match() : MatchResult.notMatch())
                        .permitAll()
                        .anyExchange()
                        .authenticated())
                .exceptionHandling(refused -> refused.authenticationEntryPoint(
                                (exchange, guest) -> refuse(refusals, Rules.missing(), exchange))
                        .accessDeniedHandler((exchange, denied) -> refuse(refusals, Rules.withoutRole(), exchange)))
                .build();
    }

    /** Keeps Spring Boot from making a user with a password. */
    @Bean
    @ConditionalOnMissingBean
    ReactiveAuthenticationManager wxauthWithoutPasswords() {
        return login -> Mono.empty();
    }

    private static boolean isOpen(Rules rules, ServerWebExchange exchange) {
        ServerHttpRequest request = exchange.getRequest();
        return CorsUtils.isPreFlightRequest(request)
                || rules.isOpen(request.getMethod().name(), request.getPath().pathWithinApplication());
    }

    private static Mono<Void> filter(
            WxauthGuard guard,
            Rules rules,
            WxauthRefusals refusals,
            ServerWebExchange exchange,
            WebFilterChain chain) {
        List<String> sent = new ArrayList<>();
        // Spring 6 and 7 have no other method in common that returns all values.
        exchange.getRequest().getHeaders().forEach((name, values) -> {
            if (name.equalsIgnoreCase(Rules.HEADER)) {
                sent.addAll(values);
            }
        });
        if (sent.isEmpty()) {
            return chain.filter(exchange);
        }
        // The guard and the project's look-up of a row may wait.
        return Mono.fromCallable(() -> decided(guard, rules, sent, exchange))
                .onErrorResume(WxauthRefusal.class, Mono::just)
                .defaultIfEmpty(GUEST)
                .subscribeOn(Schedulers.boundedElastic())
                .flatMap(decided -> decided instanceof WxauthAuthentication user
                        ? chain.filter(exchange).contextWrite(ReactiveSecurityContextHolder.withAuthentication(user))
                        : decided instanceof WxauthRefusal refusal
                                ? refuse(refusals, refusal, exchange)
                                : chain.filter(exchange));
    }

    private static Object decided(WxauthGuard guard, Rules rules, List<String> sent, ServerWebExchange exchange) {
        WxauthUser user = guard.verify(Rules.only(sent));
        if (user == null) {
            return null;
        }
        exchange.getAttributes().put(Rules.USER, user);
        ServerHttpRequest request = exchange.getRequest();
        Object principal = rules.principal(
                user, request.getMethod().name(), request.getPath().pathWithinApplication(), () -> guard.me(sent.get(0)));
        return new WxauthAuthentication(user, principal);
    }

    private static Mono<Void> refuse(WxauthRefusals refusals, WxauthRefusal refusal, ServerWebExchange exchange) {
        // Spring Security 6.0 calls the entry point before it knows whether it needs it.
        return Mono.defer(() -> {
            var headers = exchange.getRequest().getHeaders();
            var language = WxauthRefusal.language(headers.getFirst("Accept-Language"), headers.getFirst("User-Agent"));
            var refused = refusals.response(refusal, language);
            ServerHttpResponse response = exchange.getResponse();
            response.setStatusCode(refused.getStatusCode());
            refused.getHeaders().forEach((name, values) -> response.getHeaders().put(name, values));
            byte[] body = refused.getBody() == null ? new byte[0] : refused.getBody().getBytes(StandardCharsets.UTF_8);
            return response.writeWith(Mono.just(response.bufferFactory().wrap(body)));
        });
    }
}
