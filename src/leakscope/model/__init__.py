# SPDX-License-Identifier: Apache-2.0
"""Values that every source fills and every report reads. No I/O, no decisions.

Large things are numpy columns, small things are frozen typed classes.
"""
