package shop.alone;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.util.concurrent.Callable;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.ServletRegistrationBean;
import org.springframework.context.annotation.Bean;
import org.springframework.http.HttpStatus;
import org.springframework.security.access.prepost.PreAuthorize;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.web.bind.annotation.CrossOrigin;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.server.ResponseStatusException;
import wxauth.guard.WxauthUser;

@SpringBootApplication
@RestController
public class App {
    @CrossOrigin
    @GetMapping({"/whoami", "/free", "/api/{*rest}"})
    String whoami(@AuthenticationPrincipal WxauthUser user) {
        return user == null ? "guest" : user.openid();
    }

    @Bean
    ServletRegistrationBean<HttpServlet> tool() {
        return new ServletRegistrationBean<>(
                new HttpServlet() {
                    @Override
                    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
                        response.getWriter().write("the tool's " + request.getPathInfo());
                    }
                },
                "/tool/*");
    }

    @GetMapping("/later")
    Callable<String> later(@AuthenticationPrincipal WxauthUser user) {
        return () -> whoami(user);
    }

    @GetMapping("/staff")
    @PreAuthorize("hasRole('staff')")
    String staff(@AuthenticationPrincipal WxauthUser user) {
        return "staff " + user.openid();
    }

    @GetMapping("/own")
    @PreAuthorize("hasAuthority('own')")
    String own() {
        return "own";
    }

    @PostMapping({"/call-backs/{name}", "/orders"})
    String callBack(@PathVariable(name = "name", required = false) String name, @AuthenticationPrincipal WxauthUser user) {
        if (name != null && name.matches("4\\d\\d"))
            throw new ResponseStatusException(HttpStatus.valueOf(Integer.parseInt(name)));
        return name + " of " + whoami(user);
    }
}
