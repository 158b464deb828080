# SPDX-License-Identifier: Apache-2.0
"""What BPF programs collect: the helper that loads them, and what it sends through its pipe."""
