# SPDX-License-Identifier: Apache-2.0
"""A process under our hands: stopped, read, borrowed for a system call, copied; or its core file.

Knows nothing of heaps, of blocks, or of what anybody wants to find out about the process.
"""
