import cn.binarywang.wx.miniapp.api.impl.WxMaServiceImpl;
import cn.binarywang.wx.miniapp.bean.security.WxMaMsgSecCheckCheckRequest;
import cn.binarywang.wx.miniapp.bean.urllink.GenerateUrlLinkRequest;
import cn.binarywang.wx.miniapp.bean.xpay.WxMaXPaySigParams;
import cn.binarywang.wx.miniapp.config.impl.WxMaDefaultConfigImpl;
import java.util.LinkedHashMap;
import java.util.Map;
import me.chanjar.weixin.common.error.WxErrorException;
import me.chanjar.weixin.common.util.crypto.WxCryptUtil;
import me.chanjar.weixin.common.util.json.WxGsonBuilder;
import me.chanjar.weixin.common.bean.oauth2.WxOAuth2AccessToken;
import me.chanjar.weixin.mp.api.impl.WxMpServiceImpl;
import me.chanjar.weixin.mp.config.WxMpHostConfig;
import me.chanjar.weixin.mp.config.impl.WxMpDefaultConfigImpl;

/** Prints what WxJava gets from a simulated WeChat, the message that it seals, or its signatures of a payment. */
class Judge {
    interface Call { Object run() throws Exception; }

    static Object errcode(Call call) throws Exception {
        try { return call.run() == null ? "null" : "ok"; }
        catch (WxErrorException exc) { return exc.getError().getErrorCode(); }
    }

    public static void main(String[] args) throws Exception {
        System.out.println(switch (args[0]) {
            case "sign" -> WxGsonBuilder.create().toJson(signed(args[1], args[2], args[3]));
            case "seal" -> new WxCryptUtil(args[1], args[2], args[3]).encrypt(args[4]);
            default -> WxGsonBuilder.create().toJson(told(args[1], args[2], args[3], args[4], args[5]));
        });
    }

    static Map<String, String> signed(String appKey, String sessionKey, String data) {
        WxMaXPaySigParams keys = WxMaXPaySigParams.builder().appKey(appKey).sessionKey(sessionKey).build();
        return Map.of("paySig", keys.calcPaySig("requestVirtualPayment", data), "signature", keys.calcSig(data));
    }

    static Map<String, Object> told(String url, String appId, String secret, String accountId, String accountSecret) throws Exception {
        WxMaDefaultConfigImpl config = new WxMaDefaultConfigImpl();
        config.setAppid(appId);
        config.setSecret(secret);
        config.setApiHostUrl(url);
        config.useStableAccessToken(true);
        WxMaServiceImpl mini = new WxMaServiceImpl();
        mini.setWxMaConfig(config);
        Map<String, Object> told = new LinkedHashMap<>();
        String openid = mini.jsCode2SessionInfo("alice").getOpenid();
        told.put("openid", openid);
        told.put("wrong_code", errcode(() -> mini.jsCode2SessionInfo("0a3xQ2000YpDuQ1x8g000R5bKj0xQ20z")));
        told.put("number", mini.getUserService().getPhoneNumber("phone-13800138000").getPhoneNumber());
        told.put("picture", mini.getQrcodeService().createWxaCodeUnlimitBytes("a=1", "pages/index/index", true, "release", 430, true, null, false).length > 500);
        told.put("wrong_page", errcode(() -> mini.getQrcodeService().createWxaCodeUnlimitBytes("a=1", "pages/none", true, "release", 430, true, null, false)));
        told.put("link", mini.getLinkService().generateUrlLink(GenerateUrlLinkRequest.builder().path("/pages/index/index").build()));
        told.put("suggest", mini.getSecurityService().checkMessage(WxMaMsgSecCheckCheckRequest.builder().openid(openid).scene(1).version("2").content("fine").build()).getResult().getSuggest());
        WxMpDefaultConfigImpl account = new WxMpDefaultConfigImpl();
        account.setAppId(accountId);
        account.setSecret(accountSecret);
        account.setHostConfig(new WxMpHostConfig(url, url, url));
        WxMpServiceImpl mp = new WxMpServiceImpl();
        mp.setWxMpConfigStorage(account);
        WxOAuth2AccessToken granted = mp.getOAuth2Service().getAccessToken("alice");
        told.put("granted", granted.getOpenId());
        told.put("nickname", mp.getOAuth2Service().getUserInfo(granted, null).getNickname());
        told.put("signature", mp.createJsapiSignature("https://shop.example.com/").getSignature().length());
        return told;
    }
}
