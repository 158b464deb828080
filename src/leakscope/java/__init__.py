# SPDX-License-Identifier: Apache-2.0
"""Java: heap dumps read and understood, virtual machines that run looked at."""
