package wxauth.guard;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.ConnectException;
import java.net.DatagramSocket;
import java.net.HttpURLConnection;
import java.net.NoRouteToHostException;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.net.URL;
import java.net.UnknownHostException;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** What wxauth answers. */
final class Answer {
    private static final int LARGEST = 256 * 1024; // bytes
    // The same class reports that a limit of this machine is reached, and that somebody has interrupted this thread.
    private static final Pattern ENDED = Pattern.compile("reset|broken pipe|end of file|unreachable|host is down|abort");

    private final HttpURLConnection connection;
    private final long deadline;
    final int status;

    private Answer(HttpURLConnection connection, long deadline) throws IOException {
        this.connection = connection;
        this.deadline = deadline;
        status = connection.getResponseCode();
    }

    /** Asks, and returns with the last header. Follows no redirect. */
    static Answer get(String url, String token, int seconds) throws IOException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setConnectTimeout(left(deadline));
        connection.setReadTimeout(left(deadline)); // for the TLS handshake
        connection.setInstanceFollowRedirects(false);
        connection.setUseCaches(false);
        connection.setRequestProperty("Accept", "application/json");
        if (token != null) {
            connection.setRequestProperty("Authorization", "Bearer " + token);
        }
        connection.connect();
        connection.setReadTimeout(left(deadline));
        return new Answer(connection, deadline);
    }

    String header(String name) {
        String value = connection.getHeaderField(name);
        return value == null ? "" : value;
    }

    /** Returns the body of a response with the status 200. */
    byte[] document() throws IOException {
        if (status != 200) {
            end();
            throw new IOException("status " + status);
        }
        try (InputStream body = connection.getInputStream()) {
            ByteArrayOutputStream document = new ByteArrayOutputStream();
            byte[] piece = new byte[8192];
            for (int length = body.read(piece); length >= 0; length = body.read(piece)) {
                document.write(piece, 0, length);
                if (document.size() > LARGEST) {
                    throw new IOException("the document is too large");
                }
                left(deadline);
            }
            return document.toByteArray();
        }
    }

    /** Lets the connection serve another request. */
    void end() {
        try (InputStream body = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            if (body != null) {
                body.read(new byte[8192]);
            }
        } catch (IOException broken) {
            connection.disconnect();
        }
    }

    private static int left(long deadline) throws SocketTimeoutException {
        long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
        if (left <= 0) {
            throw new SocketTimeoutException("no response in time");
        }
        return (int) left;
    }

    /** Returns whether a connection was refused, failed or timed out, and this machine is not the reason. */
    static boolean isAway(IOException failure) {
        return reason(failure) != null && hasFreeFiles();
    }

    /** Returns why a request has failed. The text names no host, because responses contain the text. */
    static String reasonOf(IOException failure) {
        String known = reason(failure);
        return known == null ? "the request failed (" + failure.getClass().getSimpleName() + ")" : known;
    }

    /** Returns null if the failure is no outage of wxauth, such as a wrong certificate. */
    private static String reason(IOException failure) {
        String message = Objects.toString(failure.getMessage(), "").toLowerCase(Locale.ROOT);
        if (failure instanceof SocketTimeoutException) {
            return "no response in time";
        }
        if (failure instanceof UnknownHostException) {
            return "the host's name could not be resolved";
        }
        if (failure instanceof ConnectException) {
            return "no connection";
        }
        if (failure instanceof NoRouteToHostException) {
            return message.contains("address") ? null : "no connection"; // in Java 8, this machine has no free port
        }
        boolean isEnd = failure instanceof SocketException && ENDED.matcher(message).find();
        return isEnd || failure instanceof EOFException ? "the connection ended without a response" : null;
    }

    private static boolean hasFreeFiles() {
        try (DatagramSocket opened = new DatagramSocket()) {
            return opened.getLocalPort() > 0;
        } catch (SocketException none) {
            return false;
        }
    }
}
