import com.example.orders.Wxauth;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import java.net.URL;
import java.util.Scanner;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/** Prints the verdicts of Wxauth.java, for Java 8 and Java 17, on each line from tests/foreign/key_documents.py. */
public final class Judge {
    private final Wxauth wxauth;

    private Judge(String issuer) {
        wxauth = new Wxauth(issuer, "wxauth");
    }

    public static void main(String[] none) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            Judge judge = new Judge(words[0]);
            int first = judge.status(words[1]);
            judge.forgetThePause();
            String others = words[0].endsWith("/hanging") ? judge.besideStrangers(words) : judge.afterAStranger(words);
            System.out.println(first + " " + others);
        }
        System.exit(0); // although some threads still wait
    }

    private String afterAStranger(String[] words) throws Exception {
        int stranger = status(words[2]);
        forgetThePause();
        return stranger + " " + status(words[1]);
    }

    /** Runs 32 requests with unknown keys, and then a user's request, in 16 threads like those of a server. */
    private String besideStrangers(String[] words) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(16);
        for (int number = 0; number < 32; number++) {
            threads.submit(() -> status(words[2]));
        }
        int user = threads.submit(() -> status(words[1])).get();
        return user + " " + new Scanner(new URL(words[0] + "/answered").openStream()).next();
    }

    private void forgetThePause() throws Exception {
        Field nextAt = Wxauth.class.getDeclaredField("nextAt");
        nextAt.setAccessible(true);
        synchronized (wxauth) {
            nextAt.set(wxauth, System.nanoTime());
        }
    }

    private int status(String token) {
        try {
            wxauth.verify(token);
            return 200;
        } catch (Wxauth.InvalidToken refused) {
            return 401;
        } catch (Wxauth.KeysUnavailable away) {
            return 503;
        }
    }
}
