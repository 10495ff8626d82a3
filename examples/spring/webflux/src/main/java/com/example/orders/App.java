package com.example.orders;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.access.prepost.PreAuthorize;
import org.springframework.security.oauth2.server.resource.authentication.AbstractOAuth2TokenAuthenticationToken;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import reactor.core.publisher.Mono;

@SpringBootApplication
@RestController
public class App {
    public static void main(String[] arguments) {
        SpringApplication.run(App.class, arguments);
    }

    @GetMapping("/whoami")
    Mono<Map<String, Object>> whoami(AbstractOAuth2TokenAuthenticationToken<?> user) {
        var shown = new HashMap<String, Object>(Map.of("sub", user.getName()));
        for (var name : List.of("openid", "app_id", "external_id")) shown.put(name, user.getTokenAttributes().get(name));
        return Mono.just(shown);
    }

    @GetMapping("/staff")
    @PreAuthorize("hasRole('staff')")
    Mono<Map<String, Object>> staff(AbstractOAuth2TokenAuthenticationToken<?> user) {
        return whoami(user);
    }

    @GetMapping("/orders")
    Mono<Map<String, Object>> orders(AbstractOAuth2TokenAuthenticationToken<?> user) {
        return whoami(user);
    }
}
