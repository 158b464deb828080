// SPDX-License-Identifier: Apache-2.0
// The BPF object inside the loader, so that there is one file to install.
    .section .rodata
    .balign 16
    .global lsb_object, lsb_object_end
lsb_object:
    .incbin "kmem.bpf.o"
lsb_object_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
