# SPDX-License-Identifier: Apache-2.0
"""Readers of what the kernel and the file system say about programs and processes."""
