# SPDX-License-Identifier: Apache-2.0
import ctypes
import time

lib = ctypes.CDLL("./libmake.so")
libc = ctypes.CDLL("libc.so.6")
lib.render.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.malloc.restype = ctypes.c_void_p
total = 0
for n in range(3000):
    p = lib.render(n)
    total += len(ctypes.string_at(p))
    libc.free(p)  # correct use
    if n % 10 == 0:
        libc.malloc(4321)  # the only leak: 300 blocks
        time.sleep(0.002)
print("python done", total)
