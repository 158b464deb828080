# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells of its own memory: kmemleak, allocinfo, page_owner, slab, vmalloc."""
