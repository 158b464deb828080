# SPDX-License-Identifier: Apache-2.0
"""What `import leakscope` gives: the functions, what they take, and what they return."""
