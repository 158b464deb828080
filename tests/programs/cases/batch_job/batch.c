// SPDX-License-Identifier: Apache-2.0
#include "x.h"
/* a compiler: builds its tree for as long as it reads, prints, and frees it at the end; no leak */
struct n { struct n *l, *r; int k; char name[20]; }; static struct n *root; static long cnt;
NOINLINE struct n *mk(int k) { struct n *p = calloc(1, sizeof *p); p->k = k; sprintf(p->name, "n%d", k); cnt++; return p; }
static void ins(int k) { struct n **q = &root; while (*q) { if ((*q)->k == k) return; q = k < (*q)->k ? &(*q)->l : &(*q)->r; } *q = mk(k); }
static void fr(struct n *p) { if (!p) return; fr(p->l); fr(p->r); free(p); }
int main(int c, char **v) { double e = x_now() + x_secs(c, v); unsigned r = 5; while (x_now() < e) { for (int i = 0; i < 30; i++) { r = r * 1664525 + 1013904223; char *t = malloc(64); USE(t); ins((int)(r >> 2)); free(t); } x_nap(500); } printf("%ld\n", cnt); fr(root); root = 0; return 0; }
