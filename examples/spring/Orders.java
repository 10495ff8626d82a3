package com.example.orders;

import java.util.Map;
import org.springframework.http.HttpStatus;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.web.bind.annotation.DeleteMapping;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

@RestController
class Orders {
    @GetMapping("/orders")
    Map<String, String> mine(@AuthenticationPrincipal Jwt user) {
        return Map.of("user", user.getSubject(), "openid", user.getClaimAsString("openid"));
    }

    @DeleteMapping("/orders/{number}")
    @ResponseStatus(HttpStatus.NO_CONTENT)
    void erase(@PathVariable("number") int number) {}
}
