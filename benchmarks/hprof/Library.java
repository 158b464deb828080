// SPDX-License-Identifier: Apache-2.0
// What VisualVM's library takes for the same: all references, dominators and retained sizes.
import java.io.File;
import java.util.List;
import org.graalvm.visualvm.lib.jfluid.heap.Heap;
import org.graalvm.visualvm.lib.jfluid.heap.HeapFactory;
import org.graalvm.visualvm.lib.jfluid.heap.Instance;

public class Library {
    public static void main(String[] args) throws Exception {
        Heap heap = HeapFactory.createHeap(new File(args[0]));
        List<?> biggest = heap.getBiggestObjectsByRetainedSize(1);
        Instance first = (Instance) biggest.get(0);
        System.out.println(Long.toHexString(first.getInstanceId()) + " " + first.getRetainedSize());
    }
}
