# SPDX-License-Identifier: Apache-2.0
"""From what each command found to the one `Answer` that outputs show: a module for each source."""
