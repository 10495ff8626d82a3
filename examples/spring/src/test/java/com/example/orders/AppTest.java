package com.example.orders;

import static org.springframework.security.test.web.servlet.request.SecurityMockMvcRequestPostProcessors.jwt;
import static org.springframework.security.test.web.servlet.setup.SecurityMockMvcConfigurers.springSecurity;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.jsonPath;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.status;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.security.test.web.servlet.request.SecurityMockMvcRequestPostProcessors.JwtRequestPostProcessor;
import org.springframework.test.web.servlet.setup.MockMvcBuilders;
import org.springframework.web.context.WebApplicationContext;

@SpringBootTest
class AppTest {
    static JwtRequestPostProcessor user(String openid, String... roles) {
        return jwt().jwt(token -> token.subject("01900000-0000-7000-8000-000000000001")
                        .claim("openid", openid)
                        .claim("roles", List.of(roles))
                        .claims(claims -> claims.remove("scope"))) // Spring's test tokens have one by default
                .authorities(token -> Wxauth.authorities(token.getClaims()));
    }

    @Test
    void staffHasTheRole(@Autowired WebApplicationContext app) throws Exception {
        var mvc = MockMvcBuilders.webAppContextSetup(app).apply(springSecurity()).build();
        mvc.perform(get("/orders")).andExpect(status().isUnauthorized());
        mvc.perform(get("/orders").with(user("o1"))).andExpect(jsonPath("$.openid").value("o1"));
        mvc.perform(get("/staff").with(user("o1"))).andExpect(status().isForbidden());
        mvc.perform(get("/staff").with(user("o1", "staff"))).andExpect(status().isOk());
    }
}
