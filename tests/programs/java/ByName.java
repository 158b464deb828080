// SPDX-License-Identifier: Apache-2.0
// Leaks under a name of its own: other tests run that one at the same time.
public class ByName {
    public static void main(String[] args) throws Exception {
        Leaks.main(args);
    }
}
