// SPDX-License-Identifier: Apache-2.0
// What VisualVM's library says of a dump: address, own size and retained size of every object.
import java.io.File;
import java.io.PrintStream;
import java.io.BufferedOutputStream;
import java.util.Iterator;
import org.graalvm.visualvm.lib.jfluid.heap.Heap;
import org.graalvm.visualvm.lib.jfluid.heap.HeapFactory;
import org.graalvm.visualvm.lib.jfluid.heap.Instance;

public class Oracle {
    public static void main(String[] args) throws Exception {
        Heap heap = HeapFactory.createHeap(new File(args[0]));
        PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false);
        for (Iterator<?> each = heap.getAllInstancesIterator(); each.hasNext();) {
            Instance one = (Instance) each.next();
            out.println(Long.toHexString(one.getInstanceId()) + " " + one.getSize() + " "
                + (args.length > 1 ? 0 : one.getRetainedSize()) + " " + one.getJavaClass().getName());
        }
        out.flush();
    }
}
