// SPDX-License-Identifier: Apache-2.0
// Expected: grows as its first argument says, by as many objects as each line on standard input
// asks for, and answers "done". The kinds after `soft` do not leak.
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.lang.ref.SoftReference;
import java.lang.reflect.Field;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.zip.Deflater;

public class Leaks {
    static class Session {
        final String user;
        final byte[] state = new byte[1000];
        Session(int number) { user = "user " + number; }
    }

    interface ChangeListener { void changed(); }

    static class Button implements ChangeListener {
        final byte[] pixels = new byte[1000];
        public void changed() { }
    }

    static class Model {
        final List<ChangeListener> listeners = new ArrayList<>();
    }

    static class Slow {
        final byte[] body = new byte[1000];
        @Override protected void finalize() throws Throwable { Thread.sleep(1000000); }
    }

    static final Map<Integer, Session> SESSIONS = new HashMap<>();
    static final LinkedList<Session> QUEUE = new LinkedList<>();
    static final Model MODEL = new Model();
    static final List<ClassLoader> PLUGINS = new ArrayList<>();
    static final List<Object> KEPT = new ArrayList<>();
    static final Map<String, String> NAMES = new HashMap<>();
    static final ThreadLocal<List<Session>> LOCAL = new ThreadLocal<>();
    static final Map<Integer, SoftReference<Session>> SOFT = new HashMap<>();
    static final Map<Integer, Session> RECENT = new LinkedHashMap<>(16, 0.75f, true) {
        @Override protected boolean removeEldestEntry(Map.Entry<Integer, Session> eldest) {
            return size() > 2000;
        }
    };
    static final byte[] TEXT = new byte[10000];
    static ExecutorService pool;
    static int made;

    static void grow(String kind, int count, List<Session> mine) throws Exception {
        for (int i = 0; i < count; i++, made++) {
            switch (kind) {
                case "static": SESSIONS.put(made, new Session(made)); break;
                case "list": QUEUE.add(new Session(made)); break;
                case "buffers": KEPT.add(new byte[1000]); break;
                case "listeners": MODEL.listeners.add(new Button()); break;
                case "local": mine.add(new Session(made)); break;
                case "streams": KEPT.add(new FileInputStream("/dev/null")); break;
                case "strings": pool(("name " + made).intern()); break;
                case "finalizer": new Slow(); break;
                case "direct": KEPT.add(ByteBuffer.allocateDirect(1 << 16)); break;
                case "unsafe": unsafe(1 << 16); break;
                case "native": KEPT.add(deflater()); break;
                case "threads": sleeper(); break;
                case "threadlocal": submit(() -> {
                    if (LOCAL.get() == null) LOCAL.set(new ArrayList<>());
                    LOCAL.get().add(new Session(0));
                    return null;
                }); break;
                case "classloader": PLUGINS.add(plugin()); break;
                case "soft": SOFT.put(made, new SoftReference<>(new Session(made))); break;
                case "warmup": if (SESSIONS.size() < 4000) SESSIONS.put(made, new Session(made)); break;
                case "bounded": RECENT.put(made, new Session(made)); break;
                case "churn": new Session(made).state[0] = 1; break;
                default: throw new IllegalArgumentException(kind);
            }
        }
    }

    static void pool(String name) {
        NAMES.put(name, name);
    }

    static void unsafe(int size) throws Exception {
        Field field = sun.misc.Unsafe.class.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        sun.misc.Unsafe unsafe = (sun.misc.Unsafe) field.get(null);
        unsafe.setMemory(unsafe.allocateMemory(size), size, (byte) 1);
    }

    static Deflater deflater() {
        Deflater one = new Deflater();
        one.setInput(TEXT);
        one.deflate(new byte[100]);
        return one;
    }

    static void sleeper() {
        Thread one = new Thread(() -> {
            try { Thread.sleep(1000000); } catch (InterruptedException ended) { }
        });
        one.setDaemon(true);
        one.start();
    }

    static void submit(Callable<Void> work) throws Exception {
        if (pool == null) pool = Executors.newFixedThreadPool(4);
        Future<Void> one = pool.submit(work);
        one.get();
    }

    static ClassLoader plugin() throws Exception {
        URL here = Leaks.class.getProtectionDomain().getCodeSource().getLocation();
        ClassLoader one = new URLClassLoader(new URL[] {here}, null);
        Class<?> plugin = Class.forName("Leaks$Plugin", true, one);
        plugin.getField("DATA").get(null);
        return one;
    }

    public static class Plugin {
        public static final byte[] DATA = new byte[20000];
    }

    public static void main(String[] args) throws Exception {
        List<Session> mine = new ArrayList<>();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        System.out.println("ready");
        for (String line; (line = in.readLine()) != null;) {
            grow(args[0], Integer.parseInt(line.trim()), mine);
            System.out.println("done");
        }
        System.out.println(mine.size());
    }
}
