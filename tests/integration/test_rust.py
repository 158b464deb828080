# SPDX-License-Identifier: Apache-2.0
"""A program in Rust: its own line, and names as its programmers write them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from integration.conftest import describe, place

LEAK = """\
mod store {
    pub struct Shelf<T> {
        pub items: Vec<T>,
    }
    impl<T: Clone> Shelf<T> {
        #[inline(never)]
        pub fn lose(&self, times: usize) {
            let copy: Vec<T> = self.items.iter().cloned().cycle().take(times).collect(); // 8
            std::mem::forget(copy);
        }
    }
}

fn main() {
    let shelf = store::Shelf { items: vec![1u64, 2, 3] };
    for turn in 0..300 {
        shelf.lose(10 + turn % 3);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    println!("done");
}
"""


@pytest.mark.parametrize("flags", ["-O", "-Copt-level=0"])
def test_a_leak_in_rust_is_named(trace, tmp_path, flags):
    if shutil.which("rustc") is None:
        pytest.skip("rustc is not installed; tools/setup-debian --test does it")
    (tmp_path / "shelf.rs").write_text(LEAK)
    subprocess.run(
        ["rustc", "-g", flags, tmp_path / "shelf.rs", "-o", tmp_path / "shelf"], check=True
    )

    traced = trace([tmp_path / "shelf"])

    why = describe(traced)
    assert traced.stdout == "done\n", why
    assert [place(leak) for leak in traced.leaks] == [("shelf.rs", 8)], why
    (leak,) = traced.leaks
    own = [f for f in leak["stack"] if f["file"] and Path(f["file"]).name == "shelf.rs"]
    assert own[0]["function"] == "shelf::store::Shelf<T>::lose", why
    assert "shelf::main" in {frame["function"] for frame in own}, why
