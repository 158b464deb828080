// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A file read from front to back through a buffer.
 */
#include "hprof.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER ((size_t)1 << 20)
#define MOST ((size_t)1 << 16)

bool reader_open(struct heap *heap, int fd, uint64_t size) {
  struct reader *reader = &heap->reader;
  *reader = (struct reader){.fd = fd, .size = size};
  reader->buffer = malloc(BUFFER);
  return reader->buffer;
}

void reader_seek(struct reader *reader, uint64_t offset) {
  if (offset >= reader->base && offset - reader->base <= reader->have) {
    reader->at = (size_t)(offset - reader->base);
    return;
  }
  reader->base = offset;
  reader->at = reader->have = 0;
}

const uint8_t *reader_take(struct reader *reader, size_t count) {
  if (count > MOST)
    return NULL;
  if (reader->have - reader->at < count) {
    size_t left = reader->have - reader->at;
    memmove(reader->buffer, reader->buffer + reader->at, left);
    reader->base += reader->at;
    reader->at = 0;
    reader->have = left;
    while (reader->have < count) {
      uint64_t offset = reader->base + reader->have;
      if (offset >= reader->size)
        return NULL;
      uint64_t wanted = reader->size - offset;
      if (wanted > BUFFER - reader->have)
        wanted = BUFFER - reader->have;
      ssize_t got = pread(reader->fd, reader->buffer + reader->have, (size_t)wanted, (off_t)offset);
      if (got < 0 && errno == EINTR)
        continue;
      if (got <= 0) {
        reader->size = offset; /* it became shorter, or the disk fails: that is its end now */
        return NULL;
      }
      reader->have += (size_t)got;
    }
  }
  const uint8_t *found = reader->buffer + reader->at;
  reader->at += count;
  return found;
}

bool reader_skip(struct reader *reader, uint64_t count) {
  if (reader->have - reader->at >= count) {
    reader->at += (size_t)count;
    return true;
  }
  uint64_t at = reader_tell(reader);
  if (at > reader->size || count > reader->size - at)
    return false;
  reader_seek(reader, at + count);
  return true;
}
