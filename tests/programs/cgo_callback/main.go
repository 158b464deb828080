// SPDX-License-Identifier: Apache-2.0
// Go calls C, C calls back into Go, and Go calls C again, which leaks 801 blocks: 800 on behalf of
// main.main.func1 and one of main.main. The goroutines' stacks grow, and so move, in between.
package main

/*
#include <stdlib.h>
#include <string.h>
extern void goStep(int n);
static volatile char kept;
static void *volatile last;
static void deep(int n) { goStep(n); }
static void outer(int n) {
	char pad[1000];
	memset(pad, n, sizeof pad);
	deep(n);
	kept = pad[n];
}
static void lose(int n) { last = malloc(n); } // LEAK
*/
import "C"

import (
	"fmt"
	"sync"
)

//export goStep
func goStep(n C.int) {
	grow(int(n))
	C.lose(n)
}

//go:noinline
func grow(n int) int {
	var big [3000]byte
	for i := range big {
		big[i] = byte(i * n)
	}
	if n > 100 {
		return grow(n-100) + int(big[n])
	}
	return int(big[n])
}

//go:noinline
func request(n int) { C.outer(C.int(n)) }

func main() {
	var group sync.WaitGroup
	for w := 0; w < 4; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < 200; i++ {
				request(100 + i)
			}
		}()
	}
	group.Wait()
	request(77)
	fmt.Println("done")
}
