package wxauth.spring;

import java.util.function.Supplier;
import org.springframework.beans.factory.ListableBeanFactory;
import org.springframework.dao.ConcurrencyFailureException;
import org.springframework.dao.DataIntegrityViolationException;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.support.TransactionTemplate;
import org.springframework.util.ClassUtils;
import wxauth.guard.WxauthUser;

/** Calls the project's `WxauthAccounts`. */
final class Accounts {
    private static final int LOCKS = 64;
    private static final int ATTEMPTS = 3; // at an insert that another replica crosses

    private final WxauthAccounts<?> accounts;
    private final ListableBeanFactory beans;
    private final Object[] locks = new Object[LOCKS];

    Accounts(WxauthAccounts<?> accounts, ListableBeanFactory beans) {
        this.accounts = accounts;
        this.beans = beans;
        for (int number = 0; number < LOCKS; number++) {
            locks[number] = new Object();
        }
    }

    /** Returns null if the user has no row. */
    Object found(WxauthUser user) {
        return accounts.find(user);
    }

    /** `asked` returns the user with what wxauth tells only if it is asked. */
    Object claimed(WxauthUser user, Supplier<WxauthUser> asked) {
        Object account = accounts.find(user);
        if (account != null) {
            return account;
        }
        WxauthUser told = asked.get();
        synchronized (locks[Math.floorMod(user.id().hashCode(), LOCKS)]) {
            account = accounts.find(user);
            return account != null ? account : inserted(told);
        }
    }

    private Object inserted(WxauthUser user) {
        boolean mayHaveTransactions = ClassUtils.isPresent(
                "org.springframework.transaction.PlatformTransactionManager", Accounts.class.getClassLoader());
        Object account =
                mayHaveTransactions ? InTransaction.inserted(accounts, user, beans) : accounts.claimOrInsert(user);
        if (account == null) {
            throw new IllegalStateException("WxauthAccounts.claimOrInsert returned null");
        }
        return account;
    }

    /** Is loaded only in a project that has Spring's transactions. */
    private static final class InTransaction {
        static Object inserted(WxauthAccounts<?> accounts, WxauthUser user, ListableBeanFactory beans) {
            PlatformTransactionManager manager =
                    beans.getBeanProvider(PlatformTransactionManager.class).getIfAvailable();
            TransactionTemplate transaction = manager == null ? null : new TransactionTemplate(manager);
            for (int attempt = 1; ; attempt++) {
                try {
                    Object account = transaction == null
                            ? accounts.claimOrInsert(user)
                            : transaction.execute(status -> accounts.claimOrInsert(user));
                    if (account != null) {
                        return account;
                    }
                } catch (DataIntegrityViolationException | ConcurrencyFailureException faster) {
                    if (attempt == ATTEMPTS) {
                        throw faster;
                    }
                }
                // Another replica was faster. The transaction's snapshot may lack its row, so look again outside of it.
                Object account = accounts.find(user);
                if (account != null || attempt == ATTEMPTS) {
                    return account;
                }
            }
        }
    }
}
