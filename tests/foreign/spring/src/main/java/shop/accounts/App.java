package shop.accounts;

import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.context.annotation.Bean;
import org.springframework.dao.CannotAcquireLockException;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestAttribute;
import org.springframework.web.bind.annotation.RestController;
import wxauth.guard.WxauthRefusal;
import wxauth.guard.WxauthUser;
import wxauth.spring.WxauthAccounts;

@SpringBootApplication
@RestController
public class App {
    /** What the project has known about its users so far. */
    public static final class Member {
        final long id;

        Member(long id) {
            this.id = id;
        }

        @Override
        public String toString() {
            return "member " + id;
        }
    }

    @Bean
    WxauthAccounts<Member> accounts(JdbcTemplate jdbc) {
        jdbc.execute("DROP TABLE IF EXISTS member");
        jdbc.execute("CREATE TABLE member (id bigint AUTO_INCREMENT PRIMARY KEY, wxauth_id varchar(36) UNIQUE,"
                + " openid varchar(64), phone varchar(20))");
        jdbc.execute("INSERT INTO member (openid, phone) VALUES ('known', NULL), (NULL, '13800138000')");
        AtomicInteger crossings = new AtomicInteger();
        return new WxauthAccounts<Member>() {
            @Override
            public Member find(WxauthUser user) {
                List<Long> ids = jdbc.queryForList("SELECT id FROM member WHERE wxauth_id = ?", Long.class, user.id());
                return ids.isEmpty() ? null : new Member(ids.get(0));
            }

            @Override
            public Member claimOrInsert(WxauthUser user) {
                String phone = user.phone() == null ? null : user.phone().substring(3);
                if (user.openid().equals("banned-here"))
                    throw new WxauthRefusal("insufficient_role", "this user is banned");
                int claimed = jdbc.update("UPDATE member SET wxauth_id = ? WHERE wxauth_id IS NULL"
                        + " AND (openid = ? OR phone = ?)", user.id(), user.openid(), phone);
                if (user.openid().equals("raced")) inReplica(() -> insert(user));
                if (user.openid().equals("crossed") && crossings.getAndIncrement() == 0)
                    throw new CannotAcquireLockException("a deadlock with another replica");
                if (user.openid().equals("unseen")) {
                    inReplica(() -> insert(user));
                    return null; // as with a snapshot that lacks the other replica's row
                }
                if (claimed == 0) insert(user);
                if (user.openid().equals("half")) throw new IllegalStateException("a failure after the row");
                return find(user);
            }

            /** Runs this in a transaction of its own. */
            private void inReplica(Runnable what) {
                Thread replica = new Thread(what);
                replica.start();
                try {
                    replica.join();
                } catch (InterruptedException ended) {
                    throw new IllegalStateException(ended);
                }
            }

            private void insert(WxauthUser user) {
                jdbc.update("INSERT INTO member (wxauth_id, openid) VALUES (?, ?)", user.id(), user.openid());
            }
        };
    }

    @Bean
    @ConditionalOnProperty(name = "wxauth.beside-login", havingValue = "true")
    SecurityFilterChain own(HttpSecurity http) throws Exception {
        return http.authorizeHttpRequests(all -> all.anyRequest().authenticated()).build();
    }

    @PostMapping("/login")
    String login(@AuthenticationPrincipal Member member) {
        return "login of " + member;
    }

    @GetMapping({"/whoami", "/free"})
    String whoami(@AuthenticationPrincipal Member member, @RequestAttribute(name = "wxauth", required = false) WxauthUser wxauth) {
        return member + ", " + (wxauth == null ? "a guest" : wxauth.openid());
    }
}
