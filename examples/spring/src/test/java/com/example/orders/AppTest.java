package com.example.orders;

import static org.springframework.security.test.web.servlet.setup.SecurityMockMvcConfigurers.springSecurity;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.jsonPath;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.status;

import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.test.context.DynamicPropertyRegistry;
import org.springframework.test.context.DynamicPropertySource;
import org.springframework.test.web.servlet.setup.MockMvcBuilders;
import org.springframework.web.context.WebApplicationContext;
import wxauth.guard.testing.TestIssuer;

@SpringBootTest
class AppTest {
    static final TestIssuer WXAUTH = new TestIssuer();

    @DynamicPropertySource
    static void settings(DynamicPropertyRegistry settings) {
        settings.add("wxauth.issuer", WXAUTH::url);
    }

    @Test
    void staffHasTheRole(@Autowired WebApplicationContext app) throws Exception {
        var mvc = MockMvcBuilders.webAppContextSetup(app).apply(springSecurity()).build();
        var user = WXAUTH.authorization("o1");
        var staff = WXAUTH.authorization("o1", "staff");
        mvc.perform(get("/orders")).andExpect(status().isUnauthorized());
        mvc.perform(get("/orders").header("Authorization", user)).andExpect(jsonPath("$.openid").value("o1"));
        mvc.perform(get("/staff").header("Authorization", user)).andExpect(status().isForbidden());
        mvc.perform(get("/staff").header("Authorization", staff)).andExpect(status().isOk());
    }
}
