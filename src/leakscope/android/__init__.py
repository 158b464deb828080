# SPDX-License-Identifier: Apache-2.0
"""Android: what has to be asked of a device, by adb, to see what an app's memory does."""
