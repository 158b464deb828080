// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 *
 * A shared object that test_rules.c loads and unloads again and again.
 */
void plugin_call(void (*what)(void));

void plugin_call(void (*what)(void)) {
  volatile char room[300];
  room[0] = 1;
  what();
  room[1] = 2;
}
