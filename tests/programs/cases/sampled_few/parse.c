// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct rec { char *key; char *val; };
static char *xstrdup(const char *s){ char *p = strdup(s); if(!p) abort(); return p; }
static struct rec *parse_line(const char *l){
  struct rec *r = malloc(sizeof *r);
  r->key = xstrdup(l);
  r->val = xstrdup(strchr(l,'=')+1);
  return r;
}
static void free_rec(struct rec *r){ free(r->key); /* forgot r->val */ free(r); }
int main(void){
  char b[64]; long n=0;
  for(int i=0;i<20000;i++){ sprintf(b,"key%d=value-%d-%d",i,i,i*7); struct rec*r=parse_line(b); n+=strlen(r->key); free_rec(r);}
  printf("%ld\n",n); return 0; }
