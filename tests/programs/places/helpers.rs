// SPDX-License-Identifier: Apache-2.0
// Leaks through a helper, and through what the standard library inlines.
use std::collections::HashMap;
use std::hint::black_box;

#[inline(never)]
fn raw(n: usize) -> *mut u8 {
    unsafe { std::alloc::alloc(std::alloc::Layout::from_size_align(n, 8).unwrap()) }
}
#[inline(never)]
fn one() {
    black_box(raw(64));
}
#[inline(never)]
fn two() {
    black_box(raw(640));
}
#[inline(never)]
fn boxed(i: usize) {
    std::mem::forget(black_box(Box::new([i; 9])));
}
#[inline(never)]
fn vector(i: usize) {
    let mut v = Vec::new();
    for k in 0..i + 9 {
        v.push(k);
    }
    std::mem::forget(black_box(v));
}
#[inline(never)]
fn mapped(i: usize) {
    let mut m = HashMap::new();
    m.insert(i, format!("x{i}"));
    std::mem::forget(black_box(m));
}
fn main() {
    for i in 0..30 {
        one();
        two();
        boxed(i);
        vector(i);
        mapped(i);
    }
}
