package wxauth.spring;

import org.springframework.context.ApplicationContext;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.AbstractHttpConfigurer;
import org.springframework.web.filter.CorsFilter;

/** Adds wxauth's users to each chain of a project that has its own login. Spring Security finds it in spring.factories. */
public final class BesideLogin extends AbstractHttpConfigurer<BesideLogin, HttpSecurity> {
    @Override
    public void init(HttpSecurity http) {
        ApplicationContext context = http.getSharedObject(ApplicationContext.class);
        WxauthProperties settings = context.getBeanProvider(WxauthProperties.class).getIfAvailable();
        if (settings != null && settings.isBesideLogin()) {
            http.addFilterAfter(new UserFilter(context.getBean(Decisions.class), true), CorsFilter.class);
        }
    }
}
