package wxauth.guard;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A reader of JSON that is sufficient for tokens. It returns objects as Map, lists as List, and numbers as Double.
 */
final class Json {
    private static final int DEEPEST = 16;
    private static final int MOST_CONTAINERS = 4096;
    private final String text;
    private int at;
    private int containers;

    private Json(String text) {
        this.text = text;
    }

    /** Returns the object in these bytes. Throws a refusal for any other content. */
    static Map<String, Object> object(byte[] json) {
        try {
            return new Json(StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(json)).toString()).document();
        } catch (CharacterCodingException wrong) {
            throw WxauthRefusal.invalidToken("not UTF-8");
        }
    }

    private Map<String, Object> document() {
        skipSpace();
        if (peek() != '{') {
            throw wrong();
        }
        Map<String, Object> members = members(0);
        skipSpace();
        if (at != text.length()) {
            throw wrong();
        }
        return members;
    }

    private Object value(int depth) {
        skipSpace();
        switch (peek()) {
            case '{':
                return members(depth);
            case '[':
                return items(depth);
            case '"':
                return string();
            case 't':
                return word("true", true);
            case 'f':
                return word("false", false);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> members(int depth) {
        Map<String, Object> members = new LinkedHashMap<>();
        if (isEmpty('{', '}', depth)) {
            return members;
        }
        do {
            skipSpace();
            String name = string();
            skipSpace();
            expect(':');
            if (members.containsKey(name)) {
                throw wrong();
            }
            members.put(name, value(depth + 1));
        } while (goesOn('}'));
        return members;
    }

    private List<Object> items(int depth) {
        List<Object> items = new ArrayList<>();
        if (isEmpty('[', ']', depth)) {
            return items;
        }
        do {
            items.add(value(depth + 1));
        } while (goesOn(']'));
        return items;
    }

    private boolean isEmpty(char first, char last, int depth) {
        expect(first);
        if (depth > DEEPEST || ++containers > MOST_CONTAINERS) {
            throw wrong();
        }
        skipSpace();
        if (peek() != last) {
            return false;
        }
        at++;
        return true;
    }

    private boolean goesOn(char last) {
        skipSpace();
        if (peek() == ',') {
            at++;
            return true;
        }
        expect(last);
        return false;
    }

    private String string() {
        expect('"');
        StringBuilder string = new StringBuilder();
        for (char next = take(); next != '"'; next = take()) {
            if (next < ' ') {
                throw wrong();
            }
            string.append(next == '\\' ? escaped() : next);
        }
        return wellFormed(string.toString());
    }

    /** Refuses a lone surrogate, which some parsers replace. */
    private String wellFormed(String string) {
        for (int index = 0; index < string.length(); index++) {
            if (Character.isHighSurrogate(string.charAt(index))
                    && index + 1 < string.length()
                    && Character.isLowSurrogate(string.charAt(index + 1))) {
                index++;
            } else if (Character.isSurrogate(string.charAt(index))) {
                throw wrong();
            }
        }
        return string;
    }

    private char escaped() {
        char next = take();
        if (next == 'u') {
            at += 4;
            if (at > text.length() || !text.substring(at - 4, at).matches("[0-9a-fA-F]{4}")) {
                throw wrong();
            }
            return (char) Integer.parseInt(text.substring(at - 4, at), 16);
        }
        int which = "\"\\/bfnrt".indexOf(next);
        if (which < 0) {
            throw wrong();
        }
        return "\"\\/\b\f\n\r\t".charAt(which);
    }

    private Double number() {
        int start = at;
        while (at < text.length() && "+-.0123456789eE".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
        String number = text.substring(start, at);
        if (!number.matches("-?(0|[1-9]\\d*)(\\.\\d+)?([eE][+-]?\\d+)?")) {
            throw wrong();
        }
        Double value = Double.valueOf(number);
        if (value.isInfinite()) {
            throw wrong();
        }
        return value;
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw wrong();
        }
        at += word.length();
        return value;
    }

    private void skipSpace() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char peek() {
        if (at >= text.length()) {
            throw wrong();
        }
        return text.charAt(at);
    }

    private char take() {
        char next = peek();
        at++;
        return next;
    }

    private void expect(char wanted) {
        if (take() != wanted) {
            throw wrong();
        }
    }

    private WxauthRefusal wrong() {
        return WxauthRefusal.invalidToken("not a JSON object that every parser reads alike");
    }
}
