// SPDX-License-Identifier: Apache-2.0
package main

/*
#include <stdlib.h>
#include <string.h>
static int measure(const char *s) { return (int)strlen(s); }
static void *forget(int n) { void *p = malloc(n); memset(p, 1, n); return p; }
*/
import "C"
import ("fmt"; "os"; "time"; "sync")

func leaky(i int) int {
	s := C.CString(fmt.Sprintf("request %d with a body", i)) // LEAK: no C.free
	return int(C.measure(s))
}

func main() {
	total := 0
	var wg sync.WaitGroup; var mu sync.Mutex
	for w := 0; w < 4; w++ { wg.Add(1); go func(w int) { defer wg.Done()
		for i := 0; i < 500; i++ { n := leaky(i); mu.Lock(); total += n; mu.Unlock(); if i%10 == 0 { C.forget(300); time.Sleep(5 * time.Millisecond) } } }(w) }
	wg.Wait()
	fmt.Println("go done", total)
	os.Exit(3)
}
