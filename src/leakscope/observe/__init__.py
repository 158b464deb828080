# SPDX-License-Identifier: Apache-2.0
"""Gauges of the machine, its cgroups, kernel caches and processes over time."""
