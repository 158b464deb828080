// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Ending a scan that nobody waits for any more. Our functions run for seconds without giving the
 * caller's interpreter a chance to see a signal; they look here every few milliseconds.
 */
#include "scan.h"

#include <stdatomic.h>

static atomic_bool cancelled;

/** From now on, what runs ends as if it had failed; until this is called with false. */
EXPORT void lss_cancel(bool cancel);
void lss_cancel(bool cancel) { atomic_store(&cancelled, cancel); }

bool lss_is_cancelled(void) { return atomic_load_explicit(&cancelled, memory_order_relaxed); }
