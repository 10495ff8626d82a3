package wxauth.spring;

import org.springframework.http.ResponseEntity;
import wxauth.guard.WxauthRefusal;

/** Makes the response to a refused request. Your own bean replaces the problem document by your envelope. */
@FunctionalInterface
public interface WxauthRefusals {
    /** `acceptLanguage` is the header of the request, "zh" for WeChat's requests without it, or null. */
    ResponseEntity<String> response(WxauthRefusal refusal, String acceptLanguage);
}
