package shop.flux;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.http.HttpStatus;
import org.springframework.security.access.prepost.PreAuthorize;
import org.springframework.security.config.web.server.ServerHttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.web.server.SecurityWebFilterChain;
import org.springframework.web.bind.annotation.CrossOrigin;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestAttribute;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.server.ResponseStatusException;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;
import wxauth.guard.WxauthUser;
import wxauth.spring.WxauthAccounts;

@SpringBootApplication
@RestController
public class App {
    @Bean
    WxauthAccounts<Integer> accounts() {
        Map<String, Integer> rows = new ConcurrentHashMap<>();
        return new WxauthAccounts<>() {
            @Override
            public Integer find(WxauthUser user) {
                if (Schedulers.isInNonBlockingThread()) throw new IllegalStateException("a look-up in the event loop");
                return rows.get(user.id());
            }

            @Override
            public Integer claimOrInsert(WxauthUser user) {
                rows.put(user.id(), rows.size() + 1);
                return find(user);
            }
        };
    }

    @Bean
    @ConditionalOnProperty("own.chain")
    SecurityWebFilterChain own(ServerHttpSecurity http) {
        return http.authorizeExchange(all -> all.anyExchange().permitAll()).build();
    }

    @CrossOrigin
    @GetMapping({"/whoami", "/free"})
    Mono<String> whoami(@AuthenticationPrincipal Integer row, @RequestAttribute(name = "wxauth", required = false) WxauthUser user) {
        return Mono.just(row + ", " + (user == null ? "guest" : user.openid()));
    }

    @GetMapping("/staff")
    @PreAuthorize("hasRole('staff')")
    Mono<String> staff() {
        return Mono.just("staff");
    }

    @GetMapping("/fails")
    Mono<String> fails() {
        return Mono.error(new IllegalStateException("a failure of the project"));
    }

    @PostMapping({"/call-backs/{name}", "/login"})
    Mono<String> callBack(@PathVariable(name = "name", required = false) String name, @AuthenticationPrincipal Integer row) {
        if (name != null && name.matches("4\\d\\d"))
            return Mono.error(new ResponseStatusException(HttpStatus.valueOf(Integer.parseInt(name))));
        return Mono.just(name + " of " + row);
    }
}
