# SPDX-License-Identifier: Apache-2.0
"""Threads that use json, zlib and sqlite, and check what comes back. Prints WRONG and ends."""

import json
import os
import sqlite3
import threading
import zlib


def work(seed: int) -> None:
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (a integer, b text)")
        turn = 0
        while True:
            turn += 1
            data = {str(k): [seed, turn, "x" * (k % 40)] for k in range(50)}
            text = json.dumps(data)
            if json.loads(zlib.decompress(zlib.compress(text.encode()))) != data:
                wrong("json")
            base.execute("insert into t values (?, ?)", (turn, text))
            if base.execute("select b from t where a = ?", (turn,)).fetchone()[0] != text:
                wrong("sqlite")
            base.execute("delete from t")


def wrong(what: str) -> None:
    print("WRONG", what, flush=True)
    os._exit(9)


for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
work(9)
