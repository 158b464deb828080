// SPDX-License-Identifier: Apache-2.0
// Threads that pack and unpack, memory outside the Java heap, exceptions, garbage: what a JVM calls
// malloc for. Prints WRONG and ends when something is not as it was written.
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Random;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

public class Busy {
  private static void wrong(String what) {
    System.out.println("WRONG " + what);
    System.out.flush();
    Runtime.getRuntime().halt(9);
  }

  private static void work(int seed) {
    Random chance = new Random(seed);
    byte[] packed = new byte[1 << 16];
    for (int i = 0; ; i++) {
      byte[] text = new byte[1000 + chance.nextInt(20000)];
      Arrays.fill(text, (byte) i);
      Deflater deflater = new Deflater();
      deflater.setInput(text);
      deflater.finish();
      int size = deflater.deflate(packed);
      deflater.end();
      Inflater inflater = new Inflater();
      inflater.setInput(packed, 0, size);
      byte[] again = new byte[text.length];
      try {
        if (inflater.inflate(again) != text.length || !Arrays.equals(again, text)) wrong("a text");
        throw new IllegalStateException("number " + i);
      } catch (IllegalStateException expected) {
        if (!expected.getMessage().endsWith(" " + i)) wrong("an exception");
      } catch (Exception other) {
        wrong(other.toString());
      }
      inflater.end();
      ByteBuffer outside = ByteBuffer.allocateDirect(4096);
      outside.putLong(1000, i);
      if (outside.getLong(1000) != i) wrong("memory outside the heap");
      if (i % 20 == 0) {
        try {
          Thread.sleep(1);
        } catch (InterruptedException never) {
          wrong("an interrupt");
        }
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    for (int i = 0; i < 2; i++) {
      int seed = i;
      new Thread(() -> work(seed)).start();
    }
    while (true) {
      Thread brief = new Thread(() -> Thread.yield());
      brief.start();
      brief.join();
      Thread.sleep(2);
    }
  }
}
