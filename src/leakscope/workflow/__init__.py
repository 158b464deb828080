# SPDX-License-Identifier: Apache-2.0
"""What needs several of the parts below: what a user names becomes something that can be read."""
