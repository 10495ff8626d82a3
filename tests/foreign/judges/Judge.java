import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import java.net.URL;
import java.util.ArrayList;
import java.util.List;
import java.util.Scanner;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import wxauth.guard.WxauthGuard;
import wxauth.guard.WxauthRefusal;

/** Prints the verdicts of the guard on each line from tests/foreign/key_documents.py. */
public final class Judge {
    private final WxauthGuard guard;

    private Judge(String issuer) {
        guard = WxauthGuard.of(issuer);
    }

    public static void main(String[] none) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            Judge judge = new Judge(words[0]);
            int first = judge.status(words[1]);
            judge.forgetThePause();
            if (words[0].contains("/old/")) {
                judge.set("readAt", System.nanoTime() - TimeUnit.MINUTES.toNanos(6));
            }
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

    /** Runs 300 requests with unknown keys, and then a user's request, in 16 threads like those of a server. */
    private String besideStrangers(String[] words) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(16);
        List<Future<Integer>> strangers = new ArrayList<>();
        for (int number = 0; number < 300; number++) {
            strangers.add(threads.submit(() -> status(words[2])));
        }
        int user = threads.submit(() -> status(words[1])).get();
        String isWaitedFor = new Scanner(new URL(words[0] + "/answered").openStream()).next();
        Set<Integer> found = new TreeSet<>();
        for (Future<Integer> stranger : strangers) {
            found.add(stranger.get());
        }
        return user + " " + isWaitedFor + " " + found.toString().replace(" ", "");
    }

    private void forgetThePause() throws Exception {
        set("nextAt", System.nanoTime());
    }

    private void set(String name, long time) throws Exception {
        Field keysOfGuard = WxauthGuard.class.getDeclaredField("keys");
        keysOfGuard.setAccessible(true);
        Object keys = keysOfGuard.get(guard);
        Field field = keys.getClass().getDeclaredField(name);
        field.setAccessible(true);
        synchronized (keys) {
            field.set(keys, time);
        }
    }

    private int status(String token) {
        try {
            guard.verify("Bearer " + token);
            return 200;
        } catch (WxauthRefusal refused) {
            return refused.status();
        }
    }
}
