// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Poisson sampling by bytes: each byte allocated is a sample point with probability
 * 1/mean; a block is recorded when at least one point falls into it. Its weight
 * 1/(1-exp(-size/mean)) makes every sum over blocks unbiased (the estimator of
 * jemalloc's PROFILING_INTERNALS: unbias each block, then sum).
 */
#include "sample.h"
#include "str.h"
#include "thread.h"

/* Until a sampled recording starts every address falls into the first slot, and free takes
 * the slow path. */
uint8_t ls_sample_filter[LS_FILTER_SLOTS] = {1};
uint64_t ls_sample_hash;

void ls_sample_start(void) {
  memset(ls_sample_filter, 0, sizeof ls_sample_filter);
  __atomic_store_n(&ls_sample_hash, 0x9E3779B97F4A7C15ull, __ATOMIC_RELEASE);
}

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

/* -ln(u), u uniform in (0, 1]: exponent from the bits, mantissa by an atanh series. */
static double minus_log(uint64_t bits) {
  bits |= 1;
  unsigned lead = (unsigned)__builtin_clzll(bits);
  double mantissa = (double)(bits << lead >> 1) * (1.0 / 4611686018427387904.0); /* [1, 2) */
  double y = (mantissa - 1.0) / (mantissa + 1.0), y2 = y * y;
  double log_mantissa =
      2.0 * y * (1.0 + y2 * (1.0 / 3 + y2 * (1.0 / 5 + y2 * (1.0 / 7 + y2 * (1.0 / 9 + y2 / 11)))));
  return (double)(lead + 1) * 0.69314718055994530942 - log_mantissa;
}

void ls_sample_next(struct ls_thread *thread, uint64_t mean) {
  double gap = minus_log(next_random(&thread->random)) * (double)mean;
  ls_tls.sample_left = gap < 9e15 ? (uint64_t)gap + 1 : (uint64_t)9e15;
}

double ls_sample_weight(uint64_t size, uint64_t mean) {
  if (!mean || !size)
    return 1.0;
  double x = (double)size / (double)mean;
  if (x > 30.0)
    return 1.0;
  /* 1 - exp(-x) by halving until the series converges at once, then squaring back:
   * with q = 1-exp(-x/2^n), each step gives q <- q(2-q). */
  unsigned halvings = 0;
  double reduced = x;
  while (reduced > 0.0625) {
    reduced *= 0.5;
    halvings++;
  }
  double q = reduced * (1.0 - reduced * (0.5 - reduced * (1.0 / 6 - reduced * (1.0 / 24 - reduced / 120))));
  while (halvings--)
    q = q * (2.0 - q);
  return 1.0 / q;
}
