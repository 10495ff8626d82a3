package com.example.orders;

import java.util.HashMap;
import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.access.prepost.PreAuthorize;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import wxauth.guard.WxauthUser;

@SpringBootApplication
@RestController
public class App {
    public static void main(String[] arguments) {
        SpringApplication.run(App.class, arguments);
    }

    @GetMapping({"/whoami", "/orders"})
    Map<String, Object> whoami(@AuthenticationPrincipal WxauthUser user) {
        var shown = new HashMap<String, Object>(Map.of("sub", user.id(), "openid", user.openid(), "app_id", user.appId()));
        shown.put("external_id", user.externalId());
        return shown;
    }

    @GetMapping("/staff")
    @PreAuthorize("hasRole('staff')")
    Map<String, Object> staff(@AuthenticationPrincipal WxauthUser user) {
        return whoami(user);
    }
}
