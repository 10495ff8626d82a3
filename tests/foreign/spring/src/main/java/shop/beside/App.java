package shop.beside;

import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.security.Principal;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.http.ResponseEntity;
import org.springframework.security.authentication.UsernamePasswordAuthenticationToken;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.core.context.SecurityContextHolder;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.authentication.UsernamePasswordAuthenticationFilter;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.filter.OncePerRequestFilter;
import wxauth.spring.WxauthRefusals;

@SpringBootApplication
@RestController
public class App {
    /** The tokens that the project's own login has looked up. */
    public static final List<String> SEEN = new CopyOnWriteArrayList<>();

    private static final class OwnTokens extends OncePerRequestFilter {
        @Override
        protected boolean shouldNotFilterErrorDispatch() {
            return false;
        }

        @Override
        protected boolean shouldNotFilterAsyncDispatch() {
            return false;
        }

        @Override
        protected void doFilterInternal(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
                throws ServletException, IOException {
            for (String name : Collections.list(request.getHeaderNames())) {
                if (!name.equalsIgnoreCase("Authorization")) continue;
                SEEN.addAll(Collections.list(request.getHeaders(name)));
            }
            if ("Bearer own".equals(request.getHeader("Authorization")))
                SecurityContextHolder.getContext().setAuthentication(
                        new UsernamePasswordAuthenticationToken("admin", null, Collections.emptyList()));
            chain.doFilter(request, response);
        }
    }

    @Bean
    SecurityFilterChain own(
            HttpSecurity http, @Value("${own.stateless}") boolean stateless, @Value("${own.pattern:}") String pattern)
            throws Exception {
        if (!pattern.isEmpty()) http.securityMatcher(pattern);
        if (stateless) http.sessionManagement(all -> all.sessionCreationPolicy(SessionCreationPolicy.STATELESS));
        return http.authorizeHttpRequests(all -> all
                        .requestMatchers(request -> request.getRequestURI().equals("/staff")).hasRole("staff")
                        .anyRequest().authenticated())
                .addFilterBefore(new OwnTokens(), UsernamePasswordAuthenticationFilter.class)
                .exceptionHandling(refused -> refused.authenticationEntryPoint(
                        (request, response, guest) -> {
                            response.setStatus(401);
                            response.getWriter().write("own login");
                        }))
                .build();
    }

    @Bean
    WxauthRefusals envelope() {
        return (refusal, language) -> ResponseEntity.ok("{\"code\":" + refusal.status() + "}");
    }

    @RequestMapping("/whoami")
    String whoami(Principal user) {
        return user.getName().matches("[0-9a-f-]{36}") ? "user of wxauth" : user.getName();
    }

    @GetMapping("/staff")
    String staff() {
        return "staff";
    }

    @GetMapping("/later")
    Callable<String> later(Principal user) {
        return () -> whoami(user);
    }

    @PostMapping("/call-backs/{name}")
    String callBack(@PathVariable("name") String name, Principal user, HttpServletResponse response) throws IOException {
        if (name.equals("409")) response.sendError(409);
        return "called by " + (user == null ? "a guest" : whoami(user));
    }

    @GetMapping("/fails")
    void fails(HttpServletResponse response) throws IOException {
        response.sendError(409);
    }
}
