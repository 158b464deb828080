// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * Reading the memory of a process or a core file, and room for large tables.
 */
#define _GNU_SOURCE
#include "scan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE (2u << 20)

static const uint8_t *local(const struct image *image, uint64_t address, uint64_t *ret_bytes) {
  size_t low = 0, high = image->segment_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (image->segments[middle].end <= address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == image->segment_count || address < image->segments[low].start)
    return NULL;
  *ret_bytes = image->segments[low].end - address;
  return image->segments[low].bytes + (address - image->segments[low].start);
}

bool image_next(const struct image *image, uint64_t *start, uint64_t end, uint64_t *ret_end) {
  *ret_end = end;
  if (!image->resident)
    return *start < end;
  size_t low = 0, high = image->resident_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (image->resident[middle].end <= *start)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == image->resident_count || image->resident[low].start >= end)
    return false;
  const struct span *span = &image->resident[low];
  if (span->start > *start)
    *start = span->start;
  if (span->end < end)
    *ret_end = span->end;
  return *start < *ret_end;
}

uint64_t image_resident(const struct image *image, uint64_t start, uint64_t end) {
  uint64_t sum = 0, stop;
  for (; image_next(image, &start, end, &stop); start = stop)
    sum += stop - start;
  return sum;
}

uint64_t image_read(const struct image *image, uint64_t address, void *out, uint64_t bytes) {
  uint64_t done = 0, have;
  if (image->resident) {
    uint64_t from = address, to;
    if (!image_next(image, &from, address + bytes, &to) || from != address)
      return 0;
    bytes = to - address;
  }
  if (image->memory >= 0) {
    /* Not process_vm_readv: it pins pages, for which the kernel copies every page that a forked
     * image shares with its parent. */
    ssize_t got = pread(image->memory, out, bytes, (off_t)address);
    return got > 0 ? (uint64_t)got : 0;
  }
  while (done < bytes) {
    const uint8_t *from = local(image, address + done, &have);
    if (!from)
      break;
    uint64_t take = have < bytes - done ? have : bytes - done;
    memcpy((uint8_t *)out + done, from, take);
    done += take;
  }
  return done;
}

bool image_word(const struct image *image, uint64_t address, uint64_t *ret) {
  return image_read(image, address, ret, sizeof *ret) == sizeof *ret;
}

/* All of it is there. */
static uint64_t fill(const struct image *image, uint64_t address, uint8_t *out, uint64_t bytes) {
  uint64_t done = 0, unread = 0;
  while (done < bytes) {
    done += image_read(image, address + done, out + done, bytes - done);
    if (done == bytes)
      break;
    /* Go on behind the page that could not be read. */
    uint64_t skip = 4096 - ((address + done) & 4095);
    if (skip > bytes - done)
      skip = bytes - done;
    memset(out + done, 0, skip);
    done += skip;
    unread += skip;
  }
  return unread;
}

uint64_t image_fill(const struct image *image, uint64_t address, uint8_t *out, uint64_t bytes) {
  uint64_t at = address, end = address + bytes, unread = 0;
  while (at < end) {
    uint64_t start = at, stop;
    if (!image_next(image, &start, end, &stop))
      start = stop = end;
    memset(out + (at - address), 0, start - at);
    if (start < stop)
      unread += fill(image, start, out + (start - address), stop - start);
    at = stop;
  }
  return unread;
}

void *table_new(size_t bytes) {
  if (bytes < HUGE)
    return calloc(bytes + 1, 1);
  void *table =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (table == MAP_FAILED)
    return NULL;
  if (bytes >= 4 * HUGE)
    madvise(table, bytes, MADV_HUGEPAGE);
  return table;
}

void table_free(void *table, size_t bytes) {
  if (bytes < HUGE)
    free(table);
  else if (table)
    munmap(table, bytes);
}
