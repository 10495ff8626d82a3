package com.example.orders;

import static org.springframework.security.test.web.servlet.request.SecurityMockMvcRequestPostProcessors.jwt;
import static org.springframework.security.test.web.servlet.setup.SecurityMockMvcConfigurers.springSecurity;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.delete;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.jsonPath;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.status;

import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.security.core.authority.SimpleGrantedAuthority;
import org.springframework.security.test.web.servlet.request.SecurityMockMvcRequestPostProcessors.JwtRequestPostProcessor;
import org.springframework.test.web.servlet.MockMvc;
import org.springframework.test.web.servlet.setup.MockMvcBuilders;
import org.springframework.web.context.WebApplicationContext;

@SpringBootTest
class OrdersTest {
    @Autowired WebApplicationContext app;

    static JwtRequestPostProcessor user(String openid, String... roles) {
        var authorities = new java.util.ArrayList<org.springframework.security.core.GrantedAuthority>();
        for (var role : roles) authorities.add(new SimpleGrantedAuthority("ROLE_" + role));
        return jwt().jwt(token -> token.subject("01900000-0000-7000-8000-000000000001").claim("openid", openid))
                .authorities(authorities);
    }

    @Test
    void ordersAreTheCallersOwn() throws Exception {
        MockMvc mvc = MockMvcBuilders.webAppContextSetup(app).apply(springSecurity()).build();
        mvc.perform(get("/orders")).andExpect(status().isUnauthorized());
        mvc.perform(get("/orders").with(user("o1"))).andExpect(jsonPath("$.openid").value("o1"));
        mvc.perform(delete("/orders/7").with(user("o1"))).andExpect(status().isForbidden());
        mvc.perform(delete("/orders/7").with(user("o1", "clerk"))).andExpect(status().isNoContent());
    }
}
