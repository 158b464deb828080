// SPDX-License-Identifier: Apache-2.0
// Fill a heap with about as many objects as the argument says, as programs do: a map of sessions
// with names and attributes, a long list, a tree; then wait to be dumped.
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

public class Heap {
    static class Session {
        String user;
        Session before;
        Map<String, Object> attributes = new HashMap<>(4);
    }

    static final Map<Integer, Session> SESSIONS = new HashMap<>();
    static final LinkedList<Integer> QUEUE = new LinkedList<>();
    static final TreeMap<Long, String> TREE = new TreeMap<>();
    static final List<Session> ALL = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        int rounds = Integer.parseInt(args[0]) / 16;
        Session before = null;
        for (int i = 0; i < rounds; i++) {
            Session one = new Session();
            one.user = "user " + i;
            one.before = i % 100 == 0 ? null : before; // its library is slow at one long chain
            one.attributes.put("number", i);
            before = one;
            SESSIONS.put(i, one);
            ALL.add(one);
            QUEUE.add(i);
            TREE.put((long) i * 7919, "key " + i);
        }
        System.out.println("ready");
        System.in.read();
    }
}
