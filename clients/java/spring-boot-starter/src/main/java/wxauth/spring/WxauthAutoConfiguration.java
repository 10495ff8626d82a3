package wxauth.spring;

import jakarta.servlet.DispatcherType;
import java.util.regex.Pattern;
import org.springframework.beans.factory.ListableBeanFactory;
import org.springframework.beans.factory.ObjectProvider;
import org.springframework.boot.autoconfigure.AutoConfiguration;
import org.springframework.boot.autoconfigure.AutoConfigureOrder;
import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.boot.autoconfigure.condition.ConditionalOnWebApplication;
import org.springframework.boot.context.properties.EnableConfigurationProperties;
import org.springframework.boot.web.servlet.FilterRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.core.Ordered;
import org.springframework.core.annotation.Order;
import org.springframework.security.authentication.AuthenticationManager;
import org.springframework.security.authentication.AuthenticationProvider;
import org.springframework.security.authentication.AuthenticationServiceException;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.method.configuration.EnableMethodSecurity;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.core.userdetails.UserDetailsService;
import org.springframework.security.web.DefaultSecurityFilterChain;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.util.matcher.AnyRequestMatcher;
import org.springframework.security.web.util.matcher.RequestMatcher;
import org.springframework.web.cors.CorsUtils;
import org.springframework.web.filter.CorsFilter;
import org.springframework.web.util.pattern.PathPatternParser;
import wxauth.guard.WxauthGuard;

/** Guards every route of a servlet application, or stands before the login that the project has. */
@AutoConfiguration
@AutoConfigureOrder(Ordered.HIGHEST_PRECEDENCE) // before each configuration that makes a chain if there is none
@ConditionalOnWebApplication(type = ConditionalOnWebApplication.Type.SERVLET)
@EnableConfigurationProperties(WxauthProperties.class)
@Import(WxauthBeans.class)
public class WxauthAutoConfiguration {
    private static final String CHAIN = "wxauthChain";
    private static final String PARSER = "mvcPatternParser";
    /** What the matchers of all versions print for a securityMatcher or antMatcher of all paths. */
    private static final Pattern ALL = Pattern.compile("(Or \\[)?(Ant|Mvc|PathPattern) \\[(pattern=')?/\\*\\*'?]]?");

    @Bean
    Decisions wxauthDecisions(
            WxauthProperties settings,
            WxauthGuard guard,
            WxauthRefusals refusals,
            ObjectProvider<WxauthAccounts<?>> accounts,
            ListableBeanFactory beans) {
        PathPatternParser parser =
                beans.containsBean(PARSER) ? beans.getBean(PARSER, PathPatternParser.class) : new PathPatternParser();
        return new Decisions(guard, refusals, settings.rules(accounts, beans, parser));
    }

    @Configuration(proxyBeanMethods = false)
    @ConditionalOnProperty(name = "wxauth.beside-login", havingValue = "true")
    static class Beside {
        @Bean
        FilterRegistrationBean<TokenFilter> wxauthTokenFilter(Decisions decisions) {
            FilterRegistrationBean<TokenFilter> filter = new FilterRegistrationBean<>(new TokenFilter(decisions));
            filter.setDispatcherTypes(DispatcherType.REQUEST, DispatcherType.ASYNC, DispatcherType.ERROR);
            filter.setOrder(Ordered.HIGHEST_PRECEDENCE + 10); // after the filters of encoding and forwarded addresses
            return filter;
        }

        /** Matches the open paths alone. The project's chains decide about all others. */
        @Bean(CHAIN)
        @Order(Ordered.HIGHEST_PRECEDENCE)
        SecurityFilterChain wxauthChain(HttpSecurity http, Decisions decisions, ListableBeanFactory beans)
                throws Exception {
            // Spring Boot makes its own chain only if there is no other, so that nobody would guard the other paths.
            if (beans.getBeanNamesForType(SecurityFilterChain.class).length == 1) {
                throw new IllegalStateException("wxauth.beside-login needs the SecurityFilterChain of this project's own"
                        + " login: without one, remove the property");
            }
            http.cors(Customizer.withDefaults())
                    // The session of the project's own login might admit a request.
                    .csrf(csrf -> csrf.ignoringRequestMatchers(request -> request.getHeader("Cookie") == null))
                    .logout(logout -> logout.disable())
                    .requestCache(cache -> cache.disable())
                    .authorizeHttpRequests(requests -> requests.anyRequest().permitAll());
            return new DefaultSecurityFilterChain(decisions::isOpen, http.build().getFilters());
        }
    }

    @Configuration(proxyBeanMethods = false)
    @ConditionalOnProperty(name = "wxauth.beside-login", havingValue = "false", matchIfMissing = true)
    @EnableMethodSecurity
    static class Alone {
        @Bean(CHAIN)
        @Order(Ordered.LOWEST_PRECEDENCE)
        SecurityFilterChain wxauthChain(HttpSecurity http, Decisions decisions, ListableBeanFactory beans)
                throws Exception {
            for (String name : beans.getBeanNamesForType(SecurityFilterChain.class)) {
                if (!name.equals(CHAIN) && matchesAll(beans.getBean(name))) {
                    throw new IllegalStateException("this project's SecurityFilterChain '" + name + "' matches every"
                            + " request, so that wxauth would decide nothing: remove it, give it a securityMatcher, or"
                            + " set wxauth.beside-login=true");
                }
            }
            return http.cors(Customizer.withDefaults())
                    // No cookie admits a request, so that another website gains nothing by making a browser send one.
                    .csrf(csrf -> csrf.disable())
                    .sessionManagement(session -> session.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
                    .logout(logout -> logout.disable())
                    .requestCache(cache -> cache.disable())
                    .addFilterAfter(new UserFilter(decisions, false), CorsFilter.class)
                    .authorizeHttpRequests(requests -> requests.requestMatchers(
                                    request -> request.getDispatcherType() != DispatcherType.REQUEST
                                            || CorsUtils.isPreFlightRequest(request)
                                            || decisions.isOpen(request))
                            .permitAll()
                            .anyRequest()
                            .authenticated())
                    .exceptionHandling(refused -> refused.authenticationEntryPoint(
                                    (request, response, guest) -> decisions.refuse(Rules.missing(), request, response))
                            .accessDeniedHandler(
                                    (request, response, denied) -> decisions.refuse(Rules.withoutRole(), request, response)))
                    .build();
        }

        private static boolean matchesAll(Object chain) {
            if (!(chain instanceof DefaultSecurityFilterChain)) {
                return false;
            }
            RequestMatcher matcher = ((DefaultSecurityFilterChain) chain).getRequestMatcher();
            return matcher instanceof AnyRequestMatcher || ALL.matcher(matcher.toString()).matches();
        }

        /** Keeps Spring Boot from making a user with a password. */
        @Bean
        @ConditionalOnMissingBean({AuthenticationManager.class, AuthenticationProvider.class, UserDetailsService.class})
        AuthenticationManager wxauthWithoutPasswords() {
            return login -> {
                throw new AuthenticationServiceException("there are no passwords");
            };
        }
    }
}
