package wxauth.guard;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** What `current()` asks about each token. */
final class Authority {
    // A question that waits in this process tells nothing about wxauth. So the wait is limited apart from the question.
    private static final long BEGIN_MILLIS = 500;
    private static final int ASK_SECONDS = 2;
    private static final int MOST_ASKED = 64;
    private static final int MOST_WAITING = 256;
    private static final long PAUSE = TimeUnit.SECONDS.toNanos(1); // between two requests for the keys
    private static final long FRESH_FOR = TimeUnit.SECONDS.toNanos(1); // a finding admits tokens without a question
    private static final long MOST_LATE = TimeUnit.MILLISECONDS.toNanos(500);
    private static final long BEAT_MILLIS = 100;
    private static final String TOO_BUSY = "this process is too busy to tell whether wxauth is away";

    private final String base;
    private final String query;
    private final boolean orOffline;
    private final Semaphore asked = new Semaphore(MOST_ASKED, true);
    private final Semaphore waiting = new Semaphore(MOST_ASKED + MOST_WAITING);

    // The lock of this object guards the following fields.
    private CompletableFuture<String> finding; // why wxauth is not away, or an empty text
    private long begunAt;
    private long awayAt;
    private boolean wasAway;

    Authority(String base, String query, boolean orOffline) {
        this.base = base;
        this.query = query;
        this.orOffline = orOffline;
    }

    /** Returns the current roles of the token's user. */
    List<String> ask(String token, WxauthUser user) {
        if (orOffline && isCertain()) {
            throw notAsked("it was away a moment ago", true);
        }
        if (!waiting.tryAcquire()) {
            throw notAsked("too many requests are waiting", false);
        }
        try {
            begin();
            try {
                return askNow(token, user);
            } finally {
                asked.release();
            }
        } finally {
            waiting.release();
        }
    }

    /** Returns the verified number of the token's user, or null. */
    String phone(String token) {
        try {
            Answer answer = Answer.get(base + "/v1/me", token, ASK_SECONDS);
            if (answer.status == 401) {
                answer.end();
                throw new WxauthRefusal("session_revoked", "the session has ended");
            }
            Map<String, Object> me = Json.object(answer.document());
            return Boolean.TRUE.equals(me.get("phone_verified")) ? (String) me.get("phone") : null;
        } catch (IOException failure) {
            throw notAsked(failure.getClass().getSimpleName(), false);
        }
    }

    private void begin() {
        long called = System.nanoTime();
        try {
            if (asked.tryAcquire(BEGIN_MILLIS, TimeUnit.MILLISECONDS)) {
                if (System.nanoTime() - called <= TimeUnit.MILLISECONDS.toNanos(BEGIN_MILLIS)) {
                    return;
                }
                asked.release();
            }
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
        throw notAsked("this process is too busy", false);
    }

    private List<String> askNow(String token, WxauthUser user) {
        long began = System.nanoTime();
        Answer answer;
        try {
            answer = Answer.get(base + "/v1/verify" + query, token, ASK_SECONDS);
        } catch (IOException failure) {
            String reason = Answer.reasonOf(failure);
            if (!orOffline || !Answer.isAway(failure)) {
                throw notAsked(reason, false);
            }
            boolean isLate = System.nanoTime() - began > TimeUnit.SECONDS.toNanos(ASK_SECONDS) + MOST_LATE;
            String whyNot = isLate ? TOO_BUSY : find();
            throw notAsked(whyNot.isEmpty() ? reason : reason + ", but " + whyNot, whyNot.isEmpty());
        }
        answer.end();
        if (answer.status == 401) {
            boolean hasExpired = (Double) user.claims().get("exp") <= System.currentTimeMillis() / 1000.0;
            throw new WxauthRefusal(hasExpired ? "token_expired" : "session_revoked", "the session has ended");
        }
        if (answer.status == 403) {
            throw new WxauthRefusal("insufficient_scope", "wxauth doesn't accept this token here");
        }
        if (answer.status != 200) {
            throw notAsked("status " + answer.status, isAwayStatus(answer.status));
        }
        String session = answer.header("X-Auth-Session-ID");
        boolean isOfSession = session.isEmpty() || session.equals(user.sessionId());
        if (!answer.header("X-Auth-User-ID").equals(user.id()) || !isOfSession) {
            throw notAsked("its response is not about this session: is there a proxy in between?", false);
        }
        List<String> roles = new ArrayList<>(Arrays.asList(answer.header("X-Auth-Roles").split(",")));
        roles.removeIf(String::isEmpty);
        return roles;
    }

    private static boolean isAwayStatus(int status) {
        return status >= 502 && status <= 504;
    }

    private static WxauthRefusal notAsked(String reason, boolean isOutage) {
        String detail = "wxauth can't be asked about the session: " + reason;
        String logged = "a token could not be verified at once: " + detail;
        return new WxauthRefusal("verification_unavailable", detail, logged, isOutage);
    }

    private synchronized boolean isCertain() {
        return wasAway && System.nanoTime() - awayAt <= FRESH_FOR;
    }

    /** Returns what is found out now or was a moment ago: why wxauth is not away, or an empty text. */
    private String find() {
        CompletableFuture<String> current;
        synchronized (this) {
            if (finding == null || finding.isDone() && System.nanoTime() - begunAt >= PAUSE) {
                CompletableFuture<String> next = new CompletableFuture<>();
                // A thread of its own, because an interrupt closes the connections of a virtual thread.
                Thread thread = new Thread(() -> findOut(next), "wxauth-outage");
                thread.setDaemon(true);
                try {
                    thread.start();
                } catch (OutOfMemoryError tooManyThreads) {
                    return TOO_BUSY;
                }
                begunAt = System.nanoTime();
                finding = next;
            }
            current = finding;
        }
        return current.join();
    }

    private void findOut(CompletableFuture<String> next) {
        String whyNot = TOO_BUSY;
        try {
            whyNot = whyNotAway();
        } finally {
            synchronized (this) {
                wasAway = whyNot.isEmpty();
                awayAt = System.nanoTime();
            }
            next.complete(whyNot);
        }
    }

    /** Asks for the public keys, without anybody's token, and measures meanwhile by how much this process is late. */
    private String whyNotAway() {
        Lateness lateness = new Lateness();
        lateness.start();
        String whyNot;
        try {
            Answer answer = Answer.get(base + Keys.PATH, null, ASK_SECONDS);
            answer.end();
            boolean isAway = isAwayStatus(answer.status);
            whyNot = isAway ? "" : "it responds to a request for its public keys with status " + answer.status;
        } catch (IOException failure) {
            whyNot = Answer.isAway(failure) ? "" : "its public keys can't be read: " + Answer.reasonOf(failure);
        }
        return lateness.end() > MOST_LATE ? TOO_BUSY : whyNot;
    }

    private static final class Lateness extends Thread {
        private volatile boolean hasEnded;
        private volatile long late;
        private volatile long measuredAt = System.nanoTime();

        Lateness() {
            super("wxauth-lateness");
            setDaemon(true);
        }

        @Override
        public void run() {
            while (!hasEnded) {
                try {
                    Thread.sleep(BEAT_MILLIS);
                } catch (InterruptedException ended) {
                    return;
                }
                long now = System.nanoTime();
                late += Math.max(now - measuredAt - TimeUnit.MILLISECONDS.toNanos(BEAT_MILLIS), 0);
                measuredAt = now;
            }
        }

        long end() {
            hasEnded = true;
            return late + Math.max(System.nanoTime() - measuredAt - TimeUnit.MILLISECONDS.toNanos(BEAT_MILLIS), 0);
        }
    }
}
