# SPDX-License-Identifier: Apache-2.0
"""Starting programs under the agent, and talking to an agent that is running."""
