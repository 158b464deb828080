# SPDX-License-Identifier: Apache-2.0
"""The agent in a process that runs already: put in, heard of, taken out."""
