// SPDX-License-Identifier: Apache-2.0
// Leaks through templates, containers, an operator new of a class, and inlined headers.
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#define SEPARATE __attribute__((noinline))

template <class T> SEPARATE void drop(T *p) { asm volatile("" : : "r"(p) : "memory"); }

struct Foo {
    int x[10];
};
struct Bar {
    int y[30];
};
struct Pool {
    int z[5];
    static void *operator new(std::size_t n) {
        void *p = std::malloc(n);
        if (p == nullptr)
            std::abort();
        return std::memset(p, 0, n);
    }
    static void operator delete(void *p) { std::free(p); }
};

template <class T> T *create() { return new T(); }

SEPARATE void foos() { drop(create<Foo>()); }
SEPARATE void bars() { drop(create<Bar>()); }
SEPARATE void unique() { drop(std::make_unique<long[]>(33).release()); }
SEPARATE void pool_one() { drop(new Pool); }
SEPARATE void pool_two() {
    Pool *p = new Pool;
    p->z[0] = 2;
    drop(p);
}
SEPARATE void numbers(int n) {
    auto *v = new std::vector<int>();
    for (int i = 0; i < n; i++)
        v->push_back(i);
    drop(v);
}
SEPARATE void text(int n) {
    auto *s = new std::string();
    s->append(100 + n, 'x');
    drop(s);
}
SEPARATE void mapped(int n) {
    auto *m = new std::map<int, std::string>();
    (*m)[n] = "hi";
    drop(m);
}

int main() {
    for (int i = 0; i < 30; i++) {
        foos();
        bars();
        unique();
        pool_one();
        pool_two();
        numbers(i + 1);
        text(i);
        mapped(i);
    }
}
