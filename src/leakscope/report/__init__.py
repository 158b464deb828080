# SPDX-License-Identifier: Apache-2.0
"""Findings turned into something to read, one file an output. No decisions are made here."""
