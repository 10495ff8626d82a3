package com.example.orders;

import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Scanner;
import java.util.TreeSet;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.springframework.security.oauth2.jwt.BadJwtException;
import org.springframework.security.oauth2.jwt.JwtException;

/** Prints the verdicts of Wxauth.java's decoder, also for WebFlux, on each line from tests/foreign/key_documents.py. */
public class SpringJudge {
    interface Decoder {
        void decode(String token);
    }

    public static void main(String[] none) throws Exception {
        var printed = new ArrayList<String>();
        for (var line : Files.readAllLines(Path.of(System.getenv("JUDGED")))) {
            var words = line.split(" ");
            var decoder = decoder(words[0]);
            var first = status(decoder, words[1]);
            if (words[0].endsWith("/hanging")) printed.add(first + " " + besideStrangers(decoder, words));
            else printed.add(first + " " + status(decoder, words[2]) + " " + status(decoder, words[1]));
        }
        Files.write(Path.of(System.getenv("JUDGED") + ".out"), printed);
        System.exit(0);
    }

    private static Decoder decoder(String issuer) throws Exception {
        var found = new Wxauth().jwtDecoder(issuer, "wxauth", false);
        return token -> DECODE;
    }

    private static String besideStrangers(Decoder decoder, String[] words) throws Exception {
        var threads = Executors.newFixedThreadPool(16);
        var strangers = new ArrayList<Future<Integer>>();
        for (var number = 0; number < 300; number++) strangers.add(threads.submit(() -> status(decoder, words[2])));
        var user = threads.submit(() -> status(decoder, words[1])).get();
        var isWaitedFor = new Scanner(URI.create(words[0] + "/answered").toURL().openStream()).next();
        var found = new TreeSet<Integer>();
        for (var stranger : strangers) found.add(stranger.get());
        return user + " " + isWaitedFor + " " + found.toString().replace(" ", "");
    }

    private static int status(Decoder decoder, String token) {
        try {
            decoder.decode(token);
            return 200;
        } catch (BadJwtException refused) {
            return 401;
        } catch (JwtException away) {
            return 503;
        }
    }
}
