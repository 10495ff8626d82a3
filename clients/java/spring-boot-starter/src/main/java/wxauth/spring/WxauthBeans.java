package wxauth.spring;

import org.springframework.boot.autoconfigure.condition.ConditionalOnMissingBean;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpHeaders;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import wxauth.guard.WxauthGuard;

/** The beans that a project can replace by its own. */
@Configuration(proxyBeanMethods = false)
class WxauthBeans {
    @Bean
    @ConditionalOnMissingBean
    WxauthGuard wxauthGuard(WxauthProperties settings) {
        return settings.guard();
    }

    @Bean
    @ConditionalOnMissingBean
    WxauthRefusals wxauthRefusals() {
        return (refusal, acceptLanguage) -> {
            ResponseEntity.BodyBuilder response =
                    ResponseEntity.status(refusal.status()).contentType(MediaType.APPLICATION_PROBLEM_JSON);
            if (refusal.challenge() != null) {
                response.header(HttpHeaders.WWW_AUTHENTICATE, refusal.challenge());
            }
            if (refusal.status() == 503) {
                response.header(HttpHeaders.RETRY_AFTER, "5");
            }
            return response.body(refusal.problem(acceptLanguage));
        };
    }
}
