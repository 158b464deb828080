// SPDX-License-Identifier: Apache-2.0
// What is read from code that leaves a frame: Go's of several versions, and code that must not be
// taken for it.
#include "epilogue.h"

#include <stdio.h>
#include <string.h>

static int failures;

static void check(int line, const char *code, size_t bytes, bool understood, struct ls_epilogue want) {
  struct ls_epilogue got;
  memset(&got, 0, sizeof got);
  bool ok = ls_epilogue_read((const uint8_t *)code, bytes, &got);
  if (ok != understood ||
      (ok && (got.kind != want.kind || got.cfa != want.cfa || got.fp_at != want.fp_at ||
              got.g_at != want.g_at || got.depth_at != want.depth_at || got.pops_fp != want.pops_fp))) {
    printf("line %d: %d kind %d cfa %d fp %d g %d depth %d pops %d\n", line, ok, got.kind, got.cfa,
           got.fp_at, got.g_at, got.depth_at, got.pops_fp);
    failures++;
  }
}

#define IS(code, ...) check(__LINE__, code, sizeof code - 1, true, (struct ls_epilogue){__VA_ARGS__})
#define UNKNOWN(code) check(__LINE__, code, sizeof code - 1, false, (struct ls_epilogue){0})

#define PRESERVED "\x48\x8b\x1c\x24\x4c\x8b\x64\x24\x08\x4c\x8b\x6c\x24\x10\x4c\x8b\x74\x24\x18\x4c\x8b\x7c\x24\x20"

int main(void) {
  /* runtime.asmcgocall of Go 1.19, from a goroutine and from the run-time's own stack */
  IS("\x48\x8b\x7c\x24\x30\x48\x8b\x77\x08\x48\x2b\x74\x24\x28\x64\x48\x89\x3c\x25\xf8\xff\xff\xff"
     "\x48\x89\xf4\x89\x44\x24\x18\xc3",
     .kind = LS_EPILOGUE_GOROUTINE, .g_at = 0x30, .depth_at = 0x28);
  IS("\x48\x8b\x74\x24\x28\x48\x89\xf4\x89\x44\x24\x18\xc3", .kind = LS_EPILOGUE_SAVED_SP,
     .g_at = 0x28, .depth_at = 0x28);
  /* of Go 1.22, 1.25 and 1.27 */
  IS("\x48\x8b\x7c\x24\x08\x48\x8b\x77\x08\x48\x2b\x34\x24\x64\x48\x89\x3c\x25\xf8\xff\xff\xff"
     "\x48\x89\xf4\x89\x44\x24\x20\x5d\xc3",
     .kind = LS_EPILOGUE_GOROUTINE, .g_at = 8, .depth_at = 0, .pops_fp = true);
  IS("\x48\x8b\x34\x24\x48\x89\xf4\x89\x44\x24\x20\x5d\xc3", .kind = LS_EPILOGUE_SAVED_SP,
     .g_at = 0, .depth_at = 0, .pops_fp = true);
  /* the same in a program whose place is not fixed, and with words of a thread found by a load */
  IS("\x48\xc7\xc1\xf8\xff\xff\xff\x48\x8b\x7c\x24\x08\x48\x8b\x77\x08\x48\x2b\x34\x24\x64\x48\x89\x39"
     "\x48\x89\xf4\x89\x44\x24\x20\x5d\xc3",
     .kind = LS_EPILOGUE_GOROUTINE, .g_at = 8, .depth_at = 0, .pops_fp = true);
  IS("\x48\x8b\x0d\x00\x01\x00\x00\x48\x8b\x7c\x24\x30\x48\x8b\x77\x08\x48\x2b\x74\x24\x28\x64\x48\x89\x39"
     "\x48\x89\xf4\x89\x44\x24\x18\xc3",
     .kind = LS_EPILOGUE_GOROUTINE, .g_at = 0x30, .depth_at = 0x28);
  /* crosscall2 of Go 1.19, and of those */
  IS("\x48\x83\xc4\x18" PRESERVED "\x48\x8b\x6c\x24\x28\x48\x83\xc4\x30\xc3", .kind = LS_EPILOGUE_FRAME,
     .cfa = 0x50, .fp_at = 0x40);
  IS("\x48\x83\xc4\x18" PRESERVED "\x48\x8b\x6c\x24\x28\x48\x83\xc4\x30\x5d\xc3",
     .kind = LS_EPILOGUE_FRAME, .cfa = 0x58, .fp_at = 0x48);

  /* g of another register, g->stack.lo, and a depth that is not on the stack */
  UNKNOWN("\x48\x8b\x7c\x24\x30\x48\x8b\x76\x08\x48\x2b\x74\x24\x28\x48\x89\xf4\xc3");
  UNKNOWN("\x48\x8b\x7c\x24\x30\x48\x8b\x37\x48\x2b\x74\x24\x28\x48\x89\xf4\xc3");
  UNKNOWN("\x48\x8b\x7c\x24\x30\x48\x8b\x77\x08\x48\x2b\x77\x28\x48\x89\xf4\xc3");
  /* the frame pointer is lost on the way */
  UNKNOWN("\x48\x8b\x74\x24\x28\x48\x89\xf5\x48\x89\xf4\xc3");
  /* not all is put back: any function may end so, also the one behind a call that never returns */
  UNKNOWN("\x48\x83\xc4\x18\x5b\x5d\xc3");
  UNKNOWN("\xc3");
  /* a branch, a call, the end of what may be read */
  UNKNOWN("\x48\x83\xc4\x18\x74\x02" PRESERVED "\x48\x8b\x6c\x24\x28\x48\x83\xc4\x30\xc3");
  UNKNOWN("\x48\x83\xc4\x18\xe8\x00\x00\x00\x00" PRESERVED "\x48\x8b\x6c\x24\x28\x48\x83\xc4\x30\xc3");
  const char whole[] = "\x48\x8b\x7c\x24\x08\x48\x8b\x77\x08\x48\x2b\x34\x24\x64\x48\x89\x3c\x25\xf8"
                       "\xff\xff\xff\x48\x89\xf4\x89\x44\x24\x20\x5d\xc3";
  for (size_t bytes = 0; bytes + 1 < sizeof whole; bytes++)
    check(__LINE__, memcpy((char[64]){0}, whole, bytes), bytes, false, (struct ls_epilogue){0});
  /* any bytes: no reading beyond, no endless loop */
  uint32_t random = 1;
  for (unsigned turn = 0; turn < 300000; turn++) {
    uint8_t bytes[48];
    struct ls_epilogue unused;
    for (unsigned i = 0; i < sizeof bytes; i++)
      bytes[i] = turn & 1 ? (uint8_t)((random = random * 1664525u + 1013904223u) >> 24)
                          : (uint8_t)whole[(random = random * 1664525u + 1013904223u) >> 27];
    ls_epilogue_read(bytes, turn % (sizeof bytes + 1), &unused);
  }
  puts(failures ? "failed" : "ok");
  return failures != 0;
}
