// SPDX-License-Identifier: Apache-2.0
// Leaks what the library made for it.
void *thing_new(int n);

__attribute__((noinline)) void user(void) {
    void *volatile p = thing_new(50);
    p = 0;
    (void)p;
}

int main(void) {
    for (int i = 0; i < 30; i++)
        user();
    return 0;
}
