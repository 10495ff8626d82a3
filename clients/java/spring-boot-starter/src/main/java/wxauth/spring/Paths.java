package wxauth.spring;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.springframework.http.server.PathContainer;
import org.springframework.web.util.pattern.PathPattern;
import org.springframework.web.util.pattern.PathPatternParser;
import org.springframework.web.util.pattern.PatternParseException;

/** Matches requests as the dispatcher of this version of Spring does. */
final class Paths {
    private static final Set<String> METHODS =
            new HashSet<>(Arrays.asList("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"));

    private final List<Path> all = new ArrayList<>();

    private static final class Path {
        private final String method;
        private final PathPattern pattern;

        Path(String method, PathPattern pattern) {
            this.method = method;
            this.pattern = pattern;
        }

        boolean matches(String sent, PathContainer path) {
            boolean isMethod = method == null || method.equals(sent) || method.equals("GET") && sent.equals("HEAD");
            return isMethod && pattern.matches(path);
        }
    }

    Paths(String setting, List<String> lines, PathPatternParser parser) {
        for (String line : lines) {
            all.add(parsed(setting, line.trim(), parser));
        }
    }

    private static Path parsed(String setting, String line, PathPatternParser parser) {
        String[] parts = line.split("\\s+");
        String method = parts.length == 1 ? null : parts[0];
        String path = parts[parts.length - 1];
        if (parts.length > 2 || method != null && !METHODS.contains(method) || !path.startsWith("/")) {
            throw new IllegalStateException(setting + ": write '/path' or 'METHOD /path', not '" + line + "'");
        }
        if (path.matches("(/(\\*+|\\{[^/]*}))+/?")) {
            throw new IllegalStateException(setting + ": '" + line + "' names no path, and would match too much");
        }
        try {
            return new Path(method, parser.parse(path));
        } catch (PatternParseException wrong) {
            throw new IllegalStateException(setting + ": '" + line + "' is no pattern: " + wrong.getMessage());
        }
    }

    boolean isEmpty() {
        return all.isEmpty();
    }

    boolean matches(String method, PathContainer pathWithinApplication) {
        for (Path path : all) {
            if (path.matches(method, pathWithinApplication)) {
                return true;
            }
        }
        return false;
    }
}
