// SPDX-License-Identifier: Apache-2.0
// Grows as told, so that watch, triage and find can be seen to tell how.
//
//   grow fast [KIB_PER_S [LIMIT_MIB]]  keeps so much a second (4096), touched, for ever: growing fast
//   grow percent [N]         starts at 64 MiB and grows N % of that a minute (10), for ever: growing fast
//   grow load [SECONDS]      4 MiB a second for so long (8), then works on without more: a batch job
//   grow saw                 4 MiB a second; every 4 s all is given back: a sawtooth
//   grow cache               fills to 48 MiB, ever slower (tau 5 s): a cache
//   grow held [SECONDS]      holds 32 MiB for so long (10), then 4 MiB a second
//   grow reserve             reserves 64 MiB a second of address space and touches none: virtual, not resident
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// One touched block; the list keeps it reachable.
static void **kept;
static size_t held;

static void take(size_t size)
{
	void **block = malloc(size);
	if (block == NULL)
		exit(3);
	memset(block, 1, size);
	*block = kept;
	kept = block;
	held += size;
}

static void give_back(void)
{
	while (kept != NULL) {
		void **next = *kept;
		free(kept);
		kept = next;
	}
	held = 0;
}

static void until(size_t wanted)
{
	while (held + 16384 <= wanted)
		take(16384);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "fast";
	double number = argc > 2 ? atof(argv[2]) : 0, began = now();
	double limit = argc > 3 ? atof(argv[3]) * 1048576 : 1e18;
	const double mib = 1048576;
	size_t base = 0;

	if (strcmp(how, "percent") == 0)
		base = 64 << 20;
	else if (strcmp(how, "held") == 0)
		base = 32 << 20;
	alarm(600); // never left behind by a test that dies
	until(base);
	for (;;) {
		double t = now() - began;
		if (strcmp(how, "fast") == 0)
			until((size_t)fmin(limit, t * 1024 * (number > 0 ? number : 4096)));
		else if (strcmp(how, "percent") == 0)
			until(base + (size_t)((double)base * t / 60 * (number > 0 ? number : 10) / 100));
		else if (strcmp(how, "load") == 0)
			until((size_t)(4 * mib * fmin(t, number > 0 ? number : 8)));
		else if (strcmp(how, "saw") == 0) {
			if (held > 16 * mib)
				give_back();
			take(16384);
			struct timespec short_while = {0, 3900000};
			nanosleep(&short_while, NULL);
			continue;
		} else if (strcmp(how, "cache") == 0)
			until((size_t)(48 * mib * (1 - exp(-t / 5))));
		else if (strcmp(how, "held") == 0)
			until(base + (size_t)(4 * mib * fmax(0, t - (number > 0 ? number : 10))));
		else if (strcmp(how, "reserve") == 0)
			mmap(NULL, (size_t)(64 * mib / 20), PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		struct timespec pause = {0, 50000000};
		nanosleep(&pause, NULL);
	}
}
