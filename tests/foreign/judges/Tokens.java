import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.stream.Collectors;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.WxauthUser;

/** Prints what Java's guard says of each token, which is in base64. See tests/foreign/test_attacks.py. */
public final class Tokens {
    public static void main(String[] arguments) throws Exception {
        PrintStream output = new PrintStream(System.out, false, "UTF-8");
        WxauthGuard strict = WxauthGuard.of(arguments[0]);
        WxauthGuard both = WxauthGuard.builder(arguments[0]).websites().build();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String authorization = new String(Base64.getDecoder().decode(line), StandardCharsets.UTF_8);
            output.println("[" + said(strict, authorization) + "," + said(both, authorization) + "]");
        }
        output.flush();
        System.exit(0);
    }

    private static String said(WxauthGuard guard, String authorization) {
        try {
            WxauthUser user = guard.verify(authorization);
            return "[" + quoted(user.id()) + "," + quoted(user.sessionId()) + "," + quoted(user.appId()) + ","
                    + quoted(user.openid()) + "," + quoted(user.externalId()) + "," + quoted(user.roles()) + ","
                    + quoted(user.scope()) + "]";
        } catch (WxauthRefusal refusal) {
            return quoted(refusal.code());
        }
    }

    private static String quoted(List<String> texts) {
        return texts.stream().map(Tokens::quoted).collect(Collectors.joining(",", "[", "]"));
    }

    private static String quoted(String text) {
        return text == null ? "null" : '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
}
